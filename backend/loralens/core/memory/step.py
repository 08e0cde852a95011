"""One steady-state training step, walked symbolically: static bytes, forward, loss, backward, optimizer.

Steady state: optimizer states exist, and gradients are None when the forward pass begins (kept, with accumulation).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.architecture.causal import Call, Root
from loralens.core.memory.ledger import Ledger, Storage
from loralens.core.memory.optimizer import EIGHT_BIT_MINIMUM, OPTIMIZERS, Trained
from loralens.core.memory.size import ONE, TOKENS, ZERO, Size
from loralens.core.memory.stack import walk_stack
from loralens.core.memory.tape import Tape
from loralens.core.memory.validity import Validity

if TYPE_CHECKING:
    from loralens.core.architecture.module import Parameter
    from loralens.core.methods.base import Prepared
    from loralens.core.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Held:
    """A parameter and in how many places of its own it stands (layers of a kind share one object)."""

    parameter: Parameter
    count: int


@dataclass(slots=True)
class Step:
    """What the walk found."""

    ledger: Ledger
    held: list[Held]
    validity: Validity
    host_bytes: Size  # what lives in host memory instead (paged or offloaded optimizer states)


def held_parameters(root: Root) -> list[Held]:
    """Every parameter with its multiplicity; tied ones once."""
    counts: dict[int, int] = {}
    found: dict[int, Parameter] = {}
    for name, parameter in _named(root):
        key = id(parameter)
        if key in found and not any(part.isdigit() for part in name.split(".")):
            continue  # tied: the same weight under a second name
        found[key] = parameter
        counts[key] = counts.get(key, 0) + 1
    return [Held(parameter, counts[key]) for key, parameter in found.items()]


def _named(root: Root) -> Iterator[tuple[str, Parameter]]:
    for name, module in root.walk():
        for own, parameter in module.own_parameters():
            yield f"{name}.{own}", parameter
        adapter = getattr(module, "adapter", None)
        if adapter is not None:
            for own, parameter in adapter.parameters().items():
                yield f"{name}.{own}", parameter


def walk_step(root: Root, prepared: Prepared, recipe: Recipe) -> Step:
    """Walk one training step and return its ledger."""
    ledger = Ledger()
    validity = Validity(recipe)
    held = held_parameters(root)
    host = _book_static(ledger, root, held, recipe, validity)
    tape = Tape(ledger, autocast=recipe.autocast, fused_kernels=recipe.fused_kernels)
    if recipe.optimizer_in_backward:
        tape.on_gradient = lambda parameter, storage: True
    inputs = [Storage(ledger, TOKENS * 8, "activations", name) for name in ("token ids", "labels")]
    if recipe.padded:
        inputs.append(Storage(ledger, TOKENS * 8, "activations", "attention mask of the batch"))
    ledger.enter("forward")
    loss = _forward(tape, root, prepared, recipe, validity)
    ledger.mark("loss")
    ledger.enter("backward")
    tape.backward(loss)
    ledger.settle()
    ledger.mark("end of backward")
    del loss
    ledger.enter("optimizer")
    trained = trained_tensors(held, recipe)
    temporary = ZERO if recipe.optimizer_in_backward else OPTIMIZERS[recipe.optimizer].step(trained)
    if any(temporary):
        used = Storage(ledger, temporary, "temporaries", "optimizer step")
        ledger.settle()
        ledger.mark("optimizer step")
        del used
    ledger.mark("end of the step")
    ledger.phase = "setup"  # releasing what is left is no part of the step
    del inputs
    return Step(ledger, held, validity, host)


def _forward(tape: Tape, root: Root, prepared: Prepared, recipe: Recipe, validity: Validity):  # type: ignore[no-untyped-def]
    from loralens.core.memory.loss import causal_loss

    call = Call(recipe, validity)
    hidden = root.embed(tape, call)
    if prepared.input_gradients:
        tape.require_grad(hidden)
    embedded = hidden  # transformers' local `inputs_embeds` lives until the layers are done
    tape.ledger.mark("embeddings")
    for name, stack in root.stacks():
        hidden = walk_stack(tape, name, stack.layers, hidden, call, checkpointing=prepared.checkpointing)
    hidden = root.finish(tape, hidden)
    del embedded, call
    tape.section = "logits"
    loss = causal_loss(tape, root.head, hidden, Call(recipe, validity))
    tape.section = "activations"
    del hidden
    tape.end_autocast()
    return loss


def _book_static(ledger: Ledger, root: Root, held: list[Held], recipe: Recipe, validity: Validity) -> Size:
    for item in held:
        parameter = item.parameter
        category = "adapter" if parameter.role == "adapter" else "weights"
        ledger.book(parameter.bytes * item.count, category, parameter.label)
        if parameter.trainable and recipe.gradient_accumulation_steps > 1 and not recipe.optimizer_in_backward:
            parameter.gradient_kept = True
            ledger.book(parameter.bytes * item.count, "gradients", "gradients: " + parameter.label)
    buffers = getattr(root, "buffer_bytes", 0)
    if buffers:
        ledger.book(ONE * buffers, "weights", "buffers")
    optimizer = OPTIMIZERS[recipe.optimizer]
    state = ZERO
    for tensor in trained_tensors(held, recipe):
        state = state + optimizer.state(tensor) * tensor.count
        if optimizer.size_dependent and tensor.numel[1]:  # the rule changes where the tensor outgrows the limit
            validity.exceeds("rank", (EIGHT_BIT_MINIMUM - 1) // tensor.numel[1])
    on_host = optimizer.paged or recipe.parallelism.offload == "optimizer"
    if any(state) and not on_host:
        ledger.book(state, "optimizer_state", f"{recipe.optimizer}: {optimizer.formula}")
    return state if on_host else ZERO


def trained_tensors(held: list[Held], recipe: Recipe) -> list[Trained]:
    """The trainable tensors as the optimizer sees them."""
    rank = recipe.lora.rank
    return [
        Trained(p.numel, p.shape, p.dtype, item.count, p.numel.at(1, 1, rank))
        for item in held
        if (p := item.parameter).trainable
    ]

"""One steady-state training step, walked symbolically: static bytes, forward, loss, backward, optimizer.

Steady state: optimizer states exist, and gradients are None when the forward pass begins (kept, with accumulation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import Root
from loralens.core.architecture.gather import UNIT_GRADIENTS, kept_for_reuse, layer_bytes, reduce_bucket, step_gradients
from loralens.core.architecture.module import Embedding, Stack
from loralens.core.methods.base import outside_stacks
from loralens.core.step.optimizer import OPTIMIZERS, Trained
from loralens.core.tape.autocast import end_autocast
from loralens.core.tape.graph import Tensor
from loralens.core.tape.ledger import Ledger, Storage
from loralens.core.tape.sharding import Sharding, share
from loralens.core.tape.size import ONE, ZERO, Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.architecture.module import Module
    from loralens.core.methods.base import Prepared
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.parameter import Parameter

DEEPSPEED_FUSES: Final = ("adamw_foreach", "adamw_loop")


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


def placed_parameters(root: Root) -> list[Parameter]:
    """Every parameter once for each place of its own, in the model's order; tied ones once."""
    return [parameter for parameter, _ in _untied((name, module, 1) for name, module in root.walk())]


def held_parameters(root: Root) -> list[Held]:
    """Every parameter with its multiplicity; tied ones once."""
    counts: dict[int, int] = {}
    found: dict[int, Parameter] = {}
    for parameter, places in _untied(root.distinct()):
        found[id(parameter)] = parameter
        counts[id(parameter)] = counts.get(id(parameter), 0) + places
    return [Held(parameter, counts[key]) for key, parameter in found.items()]


def _untied(modules: Iterable[tuple[str, Module, int]]) -> Iterator[tuple[Parameter, int]]:
    """The parameters of modules with their number of places, without the second name of a tied one."""
    found: set[int] = set()
    for name, module, places in modules:
        owned = list(module.own_parameters())
        adapter = getattr(module, "adapter", None)
        if adapter is not None:
            owned += adapter.parameters().items()
        in_stack = any(part.isdigit() for part in name.split("."))
        for own, parameter in owned:
            if id(parameter) in found and not (in_stack or own.isdigit()):
                continue  # tied: the same weight under a second name
            found.add(id(parameter))
            yield parameter, places


def walk_step(root: Root, prepared: Prepared, recipe: Recipe) -> Step:
    """Walk one training step and return its ledger."""
    ledger = Ledger()
    validity = Validity(recipe)
    held = held_parameters(root)
    sharding = Sharding.of(recipe, adapters=any(item.parameter.role == "adapter" for item in held))
    host = book_static(ledger, root, held, recipe, validity, sharding)
    tape = Tape(ledger, autocast=recipe.autocast, fused_kernels=recipe.fused_kernels, sharding=sharding)
    batch = run_micro_batch(tape, root, prepared, recipe, validity)
    ledger.enter("optimizer")
    temporary = step_temporaries(trained_tensors(held, recipe), recipe, sharding)
    if any(temporary):
        used = Storage(ledger, temporary, "temporaries", "optimizer step")
        ledger.settle()
        ledger.mark("optimizer step")
        used.release()
    ledger.mark("end of the step")
    ledger.phase = "setup"  # releasing what is left is no part of the step
    tape.end(*batch)
    return Step(ledger, held, validity, host + tape.host_bytes)


def step_temporaries(trained: list[Trained], recipe: Recipe, sharding: Sharding) -> Size:
    """What the optimizer step takes beside gradients and states."""
    elements = ZERO
    for tensor in trained:
        elements = elements + tensor.numel * tensor.count
    # DeepSpeed's AdamW is one kernel: runtime/engine.py, `_configure_basic_optimizer`
    fused = sharding.master_weights and recipe.optimizer in DEEPSPEED_FUSES
    on_device = not (recipe.optimizer_in_backward or sharding.host_states or fused)
    own = share(OPTIMIZERS[recipe.optimizer].step(trained), sharding.states) if on_device else ZERO
    return own + step_gradients(sharding, elements, recipe.weights_dtype, recipe.lora.rank)


def run_micro_batch(tape: Tape, root: Root, prepared: Prepared, recipe: Recipe, validity: Validity) -> list[Storage]:
    """Forward and backward; the tape then holds the gradients, the result is what stays beside them: the batch."""
    ledger, sharding = tape.ledger, tape.sharding
    tape.pinned_tokens, tape.exceeds = validity.pinned_tokens, validity.exceeds
    tape.offloads_checkpoints = recipe.checkpoint_offload == "cpu" or recipe.parallelism.offload == "activations"
    if recipe.optimizer_in_backward:
        tape.on_gradient = lambda parameter, storage: True
    batch = [Storage(ledger, size, "activations", name) for name, size in root.inputs(recipe, validity)]
    root_unit = _gathered_root(ledger, root, sharding)
    if sharding.fetches:  # ZeRO-3: weights for reuse, and a bucket that is made once and stays
        held = [(item.parameter, item.count) for item in held_parameters(root)]
        tape.kept_for_reuse = kept_for_reuse(ledger, sharding, held)
        batch += [bucket] if (bucket := reduce_bucket(ledger, sharding, recipe.weights_dtype)) else []
    ledger.enter("forward")
    loss = _forward(tape, root, prepared, recipe, validity)
    ledger.mark("loss")
    ledger.enter("backward")
    flat = None if sharding.fetches else reduce_bucket(ledger, sharding, recipe.weights_dtype)
    tape.backward(loss)
    for layer in {layer for _, layer in tape.gradients}:
        tape.reduce_gradients(layer)
    tape.end_backward()
    tape.kept_for_reuse = None
    tape.end(root_unit)
    ledger.settle()
    tape.end(flat)
    ledger.mark("end of backward")
    return batch


def _forward(tape: Tape, root: Root, prepared: Prepared, recipe: Recipe, validity: Validity) -> Tensor:
    # the call is the callee's alone: it ends there as the model's local variables do
    loss = root.run(
        tape, Call(recipe, validity, input_gradients=prepared.input_gradients), checkpointing=prepared.checkpointing
    )
    end_autocast(tape)
    return loss


def book_static(
    ledger: Ledger, root: Root, held: list[Held], recipe: Recipe, validity: Validity, sharding: Sharding
) -> Size:
    """Book what exists before the step begins; returns what lives in host memory instead."""
    host = gradients = ZERO
    for item in held:
        parameter = item.parameter
        whole = sharding.whole_adapters and parameter.role == "adapter"
        size = share(parameter.bytes * item.count, 1 if whole else sharding.weights)
        if sharding.host_weights:
            host = host + size
        else:
            ledger.book(size, "adapter" if parameter.role == "adapter" else "weights", parameter.label)
        if parameter.trainable:
            gradients = gradients + parameter.bytes * item.count
            if recipe.gradient_accumulation_steps > 1 and not recipe.optimizer_in_backward:
                parameter.gradient_kept = True
                if not (sharding.whole_gradients or sharding.host_states):
                    kept = share(parameter.bytes * item.count, sharding.gradients)
                    ledger.book(kept, "gradients", "gradients: " + parameter.label)
    if recipe.gradient_accumulation_steps > 1 and not recipe.optimizer_in_backward:
        beside = share(root.kept_beside(validity), sharding.gradients)
        if any(beside):
            ledger.book(beside, "gradients", "what gradients that are views hold beside themselves")
    if sharding.unsharded_gradients:
        for _, stack in root.stacks():
            for layer in stack.layers:
                ledger.book(layer_bytes(layer), "gradients", UNIT_GRADIENTS)
    if sharding.host_states:  # reduced gradients wait there for the step (CPUOffload, ZeRO-Offload)
        host = host + share(gradients, sharding.gradients)
    if sharding.buckets and any(gradients):
        ledger.book(gradients, "gradients", "DDP's communication buckets")
    buffers = getattr(root, "buffer_bytes", 0)
    if buffers:
        ledger.book(ONE * buffers, "weights", "buffers")
    return host + _book_states(ledger, held, recipe, validity, sharding)


def _book_states(ledger: Ledger, held: list[Held], recipe: Recipe, validity: Validity, sharding: Sharding) -> Size:
    optimizer = OPTIMIZERS[recipe.optimizer]
    state = master = paged = ZERO
    for tensor in trained_tensors(held, recipe):
        if sharding.master_weights and tensor.dtype != "float32":
            master = master + tensor.numel * (4 * tensor.count)
            tensor = replace(tensor, dtype="float32")  # the optimizer sees the master weights
        state = state + optimizer.state(tensor) * tensor.count
        if optimizer.paged is not None:
            paged = paged + optimizer.paged(tensor) * tensor.count
        for elements in optimizer.thresholds if tensor.numel[1] else ():  # where a growing tensor changes its rule
            validity.exceeds("rank", (elements - 1) // tensor.numel[1])
    state, master = share(state, sharding.states), share(master, sharding.states)
    paged = share(paged, sharding.states)
    if sharding.host_states:
        return state + master + paged
    if any(state) and optimizer.tables_bytes:
        state = state + ONE * (optimizer.tables_bytes * _optimizers(held, recipe, optimizer.thresholds[0]))
    if recipe.autocast == "float16":
        ledger.book(ONE * 8, "optimizer_state", "gradient scaler")
    if any(state):
        ledger.book(state, "optimizer_state", f"{recipe.optimizer}: {optimizer.formula}")
    if any(master):
        ledger.book(master, "optimizer_state", "float32 master weights")
    return paged


def _optimizers(held: list[Held], recipe: Recipe, smallest: int) -> int:
    """How many optimizers have code tables of their own: with a step in backward one for each tensor that needs them."""
    if not recipe.optimizer_in_backward:
        return 1
    return sum(tensor.count for tensor in trained_tensors(held, recipe) if tensor.elements >= smallest) or 1


def _gathered_root(ledger: Ledger, root: Root, sharding: Sharding) -> Storage | None:
    """Embedding, norm and head: gathered before forward, released after backward."""
    if not sharding.gathers or sharding.fetches:
        return None
    size = ZERO
    seen: set[int] = set()
    for _, module in outside_stacks(root):
        apart = root.sharded_apart and (isinstance(module, Embedding) or module is root.head)
        if not isinstance(module, Stack) and not apart:
            for _, parameter in module.own_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    size = size + parameter.bytes
    return Storage(ledger, size, "temporaries", "weights of the root unit, gathered")


def trained_tensors(held: list[Held], recipe: Recipe) -> list[Trained]:
    """The trainable tensors as the optimizer sees them."""
    rank = recipe.lora.rank
    return [
        Trained(p.numel, p.shape, p.dtype, item.count, p.numel.at(1, 1, rank))
        for item in held
        if (p := item.parameter).trainable
    ]

"""One steady-state training step, walked symbolically: static bytes, forward, loss, backward, optimizer.

Steady state: optimizer states exist, and gradients are None when the forward pass begins (kept, with accumulation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from loralens.core.architecture.causal import Root
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.module import Embedding, Stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.methods.base import outside_stacks
from loralens.core.objectives.passes import Passes
from loralens.core.objectives.table import objective_of
from loralens.core.parallel.table import strategy_of
from loralens.core.question.losses import LOSS_TABLE
from loralens.core.question.parallelism import Parallelism
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.step.optimizer import OPTIMIZERS, Trained
from loralens.core.step.outputs import alive_in_next_forward, bound, graph_ends, returned
from loralens.core.step.rows import in_rows, in_samples, per_sample
from loralens.core.tape.checkpoint import is_reentrant
from loralens.core.tape.counting import CountingTape
from loralens.core.tape.graph import Ends
from loralens.core.tape.ledger import Ledger, Storage
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import ONE, ZERO, Size, share
from loralens.core.tape.standing import LastApart
from loralens.core.tape.tape import Tape
from loralens.core.tape.traffic import Traffic
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.architecture.module import Module
    from loralens.core.methods.base import Prepared
    from loralens.core.parallel.strategy import Strategy
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.work import WorkLog


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
    layers: int
    host_bytes: Size  # what lives in host memory instead (paged or offloaded optimizer states)
    attention: dict[str, str]  # PyTorch's attention kernels that were picked, and what kept faster ones away
    traffic: Traffic


def placed_parameters(root: Root) -> list[Parameter]:
    """Every parameter once for each place of its own, in the model's order; tied ones once."""
    return [parameter for _, _, parameter in named_parameters(root)]


def named_parameters(root: Root) -> list[tuple[str, Module, Parameter]]:
    """`placed_parameters` with the module that has each, under its full name."""
    return [found[:3] for found in _untied((name, module, 1) for name, module in root.walk())]


def held_parameters(root: Root) -> list[Held]:
    """Every parameter with its multiplicity; tied ones once."""
    counts: dict[int, int] = {}
    found: dict[int, Parameter] = {}
    for _, _, parameter, places in _untied(root.distinct()):
        found[id(parameter)] = parameter
        counts[id(parameter)] = counts.get(id(parameter), 0) + places
    return [Held(parameter, counts[key]) for key, parameter in found.items()]


def _untied(modules: Iterable[tuple[str, Module, int]]) -> Iterator[tuple[str, Module, Parameter, int]]:
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
            yield name, module, parameter, places


def walk_step(
    root: Root,
    prepared: Prepared,
    recipe: Recipe,
    beside: Mapping[str, Root] | None = None,
    work: WorkLog | None = None,
    ledger: type[Ledger] = Ledger,
) -> Step:
    """Walk one training step and return its ledger.

    The last layers of a stack are walked by themselves only where they do not do as those before them did.

    Args:
        root: the model that learns.
        prepared: what its method decided.
        recipe: as asked; the walk counts rows.
        beside: the models of the objective that do not learn.
        work: counts what the operators do, which takes half as long again.
        ledger: the kind of ledger in which it is booked.
    """
    alike = recipe.parallelism == Parallelism() and not is_reentrant(recipe) and not root.last_apart
    if alike and work is None:
        with suppress(LastApart):
            return _walk(root, prepared, recipe, beside, None, ledger(), last_alike=True)
    return _walk(root, prepared, recipe, beside, work, ledger(), last_alike=False)


def _walk(
    root: Root,
    prepared: Prepared,
    recipe: Recipe,
    beside: Mapping[str, Root] | None,
    work: WorkLog | None,
    ledger: Ledger,
    *,
    last_alike: bool,
) -> Step:
    rows, beside, recipe = objective_of(recipe).rows, beside or {}, in_rows(recipe)
    validity = Validity(recipe)
    held = held_parameters(root)
    strategy = strategy_of(recipe, adapters=any(item.parameter.role == "adapter" for item in held))
    host = book_static(ledger, root, held, recipe, validity, strategy)
    for other in beside.values():
        host = host + book_beside(ledger, other, strategy)
    make = Tape if work is None else partial(CountingTape, work)
    tape = make(
        ledger,
        validity=validity,
        hooks=strategy,
        autocast=recipe.autocast,
        kernels=Kernels.of(recipe),
        last_alike=last_alike,
    )
    with strategy.in_use([item.parameter for item in held]):
        batch = run_micro_batch(tape, root, prepared, recipe, validity, beside, held)
    ledger.enter("optimizer")
    temporary = step_temporaries(trained_tensors(held, recipe), recipe, strategy)
    if any(temporary):
        used = Storage(ledger, temporary, "temporaries", "optimizer step")
        ledger.settle()
        ledger.mark("optimizer step")
        used.release()
    ledger.mark("end of the step")
    if tape.handed.outputs and not LOSS_TABLE[recipe.loss].kept:
        alive_in_next_forward(ledger, tape)
    ledger.phase = "setup"  # releasing what is left is no part of the step
    tape.end(*batch)
    in_samples(ledger, validity, work, rows)
    host_bytes = per_sample(host + strategy.host_bytes, rows)
    return Step(ledger, held, validity, _layers(root), host_bytes, tape.kernels.attention, tape.traffic.alone())


def step_temporaries(trained: list[Trained], recipe: Recipe, strategy: Strategy) -> Size:
    """What the optimizer step takes beside gradients and states."""
    elements = ZERO
    for tensor in trained:
        elements = elements + tensor.numel * tensor.count
    on_device = not (recipe.optimizer_in_backward or strategy.host.states or strategy.replaces(recipe.optimizer))
    own = ZERO
    for parts in dict.fromkeys(tensor.shared_by for tensor in trained) if on_device else ():
        alike = [tensor for tensor in trained if tensor.shared_by == parts]
        own = own + share(OPTIMIZERS[recipe.optimizer].step(alike), parts or strategy.states)
    return own + strategy.step_extra(elements, recipe.weights_dtype, recipe.lora.rank)


def run_micro_batch(
    tape: Tape,
    root: Root,
    prepared: Prepared,
    recipe: Recipe,
    validity: Validity,
    beside: Mapping[str, Root] | None = None,
    held: list[Held] | None = None,
) -> list[Storage]:
    """Forward and backward; the tape then holds the gradients, the result is what stays beside them: the batch.

    `recipe` counts rows (`in_rows`); `held`: the root's parameters, where they have been counted already.

    Raises:
        UnsupportedArchitecture: something in the recipe is counted only.
    """
    if root.only_counted:
        raise UnsupportedArchitecture(
            root.only_counted,
            field="lora.target_modules",
            hint="GET /api/parameters counts it; for the step name linear layers, or the table in modules_to_save",
        )
    ledger, hooks, objective = tape.ledger, tape.hooks, objective_of(recipe)
    if recipe.optimizer_in_backward:
        tape.on_gradient = lambda parameter, storage: True
    batch = [Storage(ledger, size, "activations", name) for name, size in objective.inputs(root, recipe, validity)]
    placed = [(item.parameter, item.count) for item in held or held_parameters(root)]
    batch += hooks.before_forward(tape, _ends(root), placed)
    tape.handed.outputs = bound(tape, root, recipe)
    tape.handed.cache = [] if root.caches and recipe.use_cache and not prepared.checkpointing else None
    ledger.enter("forward")
    loss = objective.loss(Passes(tape, root, prepared, recipe, validity, beside or {}))
    hooks.after_forward(tape)
    returned(tape, recipe, loss)
    ledger.mark("loss")
    ledger.enter("backward")
    hooks.before_backward(tape)
    tape.backward(loss)
    hooks.after_backward(tape)
    tape.handed.end_backward()
    hooks.done(tape)
    ledger.settle()
    ledger.mark("end of backward")
    graph_ends(tape)
    return batch


def book_beside(ledger: Ledger, root: Root, strategy: Strategy) -> Size:
    """Book the weights of a model that does not learn; returns what lives in host memory instead."""
    host, held = ZERO, held_parameters(root)
    for item in held:
        size = share(item.parameter.bytes * item.count, strategy.parts(item.parameter))
        if strategy.host.weights:
            host = host + size
        else:
            ledger.book(size, "weights", item.parameter.label)
    buffers = root.buffers(held[0].parameter.dtype)
    if buffers:
        ledger.book(ONE * buffers, "weights", "buffers")
    return host


def book_static(
    ledger: Ledger, root: Root, held: list[Held], recipe: Recipe, validity: Validity, strategy: Strategy
) -> Size:
    """Book what exists before the step begins; returns what lives in host memory instead."""
    host = gradients = ZERO
    for item in held:
        parameter = item.parameter
        size = share(parameter.bytes * item.count, strategy.parts(parameter))
        if strategy.host.weights:
            host = host + size
        else:
            ledger.book(size, "adapter" if parameter.role == "adapter" else "weights", parameter.label)
        if parameter.trainable and not parameter.idle:
            gradients = gradients + parameter.bytes * item.count
            if recipe.gradient_accumulation_steps > 1 and not recipe.optimizer_in_backward:
                parameter.gradient_kept = strategy.adds_in_place
                kept = strategy.accumulated(parameter.bytes * item.count, parameter)
                if any(kept):
                    ledger.book(kept, "gradients", "gradients: " + parameter.label)
    if recipe.gradient_accumulation_steps > 1 and not recipe.optimizer_in_backward:
        beside = share(root.kept_beside(validity), strategy.gradients)
        if any(beside):
            ledger.book(beside, "gradients", "what gradients that are views hold beside themselves")
    layers = (layer.all_parameters() for _, stack in root.stacks() for layer in stack.layers)
    strategy.book_gradients(ledger, gradients, layers)
    host = host + strategy.waiting(gradients)
    buffers = root.buffers(recipe.weights_dtype)
    if buffers:
        ledger.book(ONE * buffers, "weights", "buffers")
    return host + _book_states(ledger, held, recipe, validity, strategy)


def _book_states(ledger: Ledger, held: list[Held], recipe: Recipe, validity: Validity, strategy: Strategy) -> Size:
    trained = trained_tensors(held, recipe)
    alike = dict.fromkeys(tensor.shared_by for tensor in trained)
    state = master = paged = ZERO
    for parts in alike:
        own = [tensor for tensor in trained if tensor.shared_by == parts]
        held_here = _states(own, recipe, validity, strategy, parts)
        state, master, paged = state + held_here[0], master + held_here[1], paged + held_here[2]
    optimizer = OPTIMIZERS[recipe.optimizer]
    if strategy.host.states:
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


def _states(
    trained: list[Trained], recipe: Recipe, validity: Validity, strategy: Strategy, parts: int | None
) -> tuple[Size, Size, Size]:
    """This GPU's part of states, master weights and paged states of tensors that are divided alike."""
    optimizer = OPTIMIZERS[recipe.optimizer]
    state = master = paged = counters = ZERO
    for tensor in trained:
        if copied := strategy.master_dtype(tensor.dtype):
            master = master + tensor.numel * (ITEM_BYTES[copied] * tensor.count)
            tensor = replace(tensor, dtype=copied)  # the optimizer sees the master weights
        state = state + optimizer.state(tensor) * tensor.count
        counters = counters + ONE * (optimizer.counter_bytes * tensor.count)
        if optimizer.paged is not None:
            paged = paged + optimizer.paged(tensor) * tensor.count
        for elements in optimizer.thresholds if tensor.numel[1] else ():  # where a growing tensor changes its rule
            validity.exceeds("rank", (elements - 1) // tensor.numel[1])
    among = parts or strategy.states
    return strategy.states_held(state, counters, parts), share(master, among), share(paged, among)


def _optimizers(held: list[Held], recipe: Recipe, smallest: int) -> int:
    """How many optimizers have code tables of their own: with a step in backward one for each tensor that needs them."""
    if not recipe.optimizer_in_backward:
        return 1
    return sum(tensor.count for tensor in trained_tensors(held, recipe) if tensor.elements >= smallest) or 1


def _ends(root: Root) -> Ends:
    """Weights outside of the stacks, without what is a unit of its own: embeddings; norm and head."""
    first: dict[int, Parameter] = {}
    last: dict[int, Parameter] = {}
    for _, module in outside_stacks(root):
        apart = root.sharded_apart and (isinstance(module, Embedding) or root.is_head(module))
        if not isinstance(module, Stack) and not apart:
            found = first if isinstance(module, Embedding) else last
            found.update((id(parameter), parameter) for _, parameter in module.own_parameters())
            adapter = getattr(module, "adapter", None)
            if adapter is not None:
                found.update((id(parameter), parameter) for parameter in adapter.parameters().values())
    if isinstance(root, CausalDecoder) and len(root.stacks()) == 1 and not first.keys() & last.keys():
        return Ends(list(first.values()), list(last.values()))
    return Ends((), list((first | last).values()), apart=False)


def _layers(root: Root) -> int:
    return sum(len(stack) for _, stack in root.stacks())


def trained_tensors(held: list[Held], recipe: Recipe) -> list[Trained]:
    """The trainable tensors as the optimizer sees them."""
    rank = recipe.lora.rank
    return [
        Trained(p.numel, p.shape, p.dtype, item.count, p.numel.at(1, 1, rank), p.shared_by)
        for item in held
        if (p := item.parameter).trainable and not p.idle
    ]

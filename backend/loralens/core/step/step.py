"""One steady-state training step, walked symbolically: static bytes, forward, loss, backward, optimizer.

Steady state: optimizer states exist, and gradients are None when the forward pass begins (kept, with accumulation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.module import Embedding, Stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.methods.base import outside_stacks
from loralens.core.objectives.passes import Learner, Others, Passes
from loralens.core.objectives.table import objective_of
from loralens.core.parallel.table import strategy_of
from loralens.core.partition.pipeline import splits
from loralens.core.question.losses import LOSS_TABLE
from loralens.core.question.parallelism import Parallelism
from loralens.core.step.held import Held, held_parameters, trained_tensors
from loralens.core.step.optimizer import OPTIMIZERS, Trained
from loralens.core.step.outputs import alive_in_next_forward, bound, graph_ends, returned
from loralens.core.step.peaks import Peaks
from loralens.core.step.rows import in_rows, in_samples, per_sample
from loralens.core.step.static import book_beside, book_kept, book_static
from loralens.core.tape.checkpoint import is_reentrant
from loralens.core.tape.counting import CountingTape
from loralens.core.tape.graph import Ends
from loralens.core.tape.halves import FirstHalf
from loralens.core.tape.ledger import Entry, Ledger, Storage
from loralens.core.tape.pair import KernelsApart, OtherCard, PairedLedger
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import ZERO, Size, share
from loralens.core.tape.standing import LastApart, SharedEnds
from loralens.core.tape.tape import Tape
from loralens.core.tape.traffic import Traffic
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.methods.base import Prepared
    from loralens.core.parallel.strategy import Strategy
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.work import WorkLog


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
    also: Peaks | None = None  # of the other card that was asked for


def walk_step(
    root: Root,
    prepared: Prepared,
    recipe: Recipe,
    beside: Others | None = None,
    work: WorkLog | None = None,
    ledger: type[Ledger] = Ledger,
    also_on: str | None = None,
) -> Step:
    """Walk one training step and return its ledger.

    The last layers of a stack are walked by themselves only where they do not do as those before them did.

    Args:
        root: the model that learns.
        prepared: what its method decided.
        recipe: as asked; the walk counts rows.
        beside: the objective's other models.
        work: counts what the operators do, which takes half as long again.
        ledger: the kind of ledger in which it is booked.
        also_on: an accelerator whose peaks are wanted beside, of recipes for which sums are enough; where one walk can tell them.
    """
    beside = beside or Others()
    apart = root.last_apart or (beside.value is not None and beside.value.root.last_apart)
    alike = work is None and recipe.parallelism == Parallelism() and not is_reentrant(recipe) and not apart
    units = 2 if alike else 3
    while True:
        card = None if also_on is None else OtherCard(also_on, PairedLedger(), Validity(recipe))
        booked = ledger() if card is None else card.pair
        try:
            return _walk(root, prepared, recipe, beside, work, booked, card, units)
        except LastApart:
            units = 3
        except SharedEnds:
            units = 4
            if work is not None:
                work.clear()
        except KernelsApart:
            also_on = None


def _walk(
    root: Root,
    prepared: Prepared,
    recipe: Recipe,
    beside: Others,
    work: WorkLog | None,
    ledger: Ledger,
    card: OtherCard | None,
    units: int,
) -> Step:
    objective, recipe = objective_of(recipe), in_rows(recipe)
    rows = objective.rows
    validity = Validity(recipe)
    held = held_parameters(root)
    strategy = strategy_of(recipe, adapters=any(item.parameter.role == "adapter" for item in held))
    host = book_static(ledger, root, held, recipe, validity, strategy, learning=not objective.generates)
    for other in beside.frozen.values():
        host = host + book_beside(ledger, other, strategy)
    trained = trained_tensors(held, recipe)
    placed = [item.parameter for item in held]
    own: list[Held] = []
    if beside.value is not None:
        own = held_parameters(beside.value.root)
        placed += [item.parameter for item in own]
        trained += trained_tensors(own, recipe) if recipe.value.together else []
        words = beside.value.prepared.recipe
        host = host + book_static(
            ledger, beside.value.root, own, words, validity, strategy, beside.value.name, learning=False
        )
    make = Tape if work is None else partial(CountingTape, work)
    tape = make(
        ledger,
        validity=validity,
        hooks=strategy,
        autocast=recipe.autocast,
        kernels=Kernels.of(recipe),
        units=units,
    )
    tape.other_card = card

    def begins() -> None:
        book_kept(ledger, root, held, recipe, validity, strategy)
        if beside.value is not None and recipe.value.together:
            book_kept(ledger, beside.value.root, own, recipe, validity, strategy)

    tape.halves = FirstHalf() if splits(recipe) else None
    with strategy.in_use(placed):
        batch = run_micro_batch(
            tape, root, prepared, recipe, validity, beside, held, begins if objective.generates else None
        )
    ledger.enter("optimizer")
    _take_step(ledger, trained, recipe, strategy)
    if any(tape.handed.logged):
        _log(ledger, tape.handed.logged, kept=recipe.gradient_accumulation_steps > 1)
    if tape.handed.outputs and not LOSS_TABLE[recipe.loss].kept:
        alive_in_next_forward(ledger, tape)
    ledger.phase = "setup"  # releasing what is left is no part of the step
    tape.end(*batch, *tape.handed.until_step)
    if card is not None:
        card.validity.narrow(validity)
        ledger = card.pair.own
    in_samples(ledger, validity, work, rows)
    host_bytes = per_sample(host + strategy.host_bytes, rows)
    also = None if card is None else Peaks(card.sums(), card.validity)
    return Step(ledger, held, validity, _layers(root), host_bytes, tape.kernels.attention, tape.traffic.alone(), also)


def _take_step(ledger: Ledger, trained: list[Trained], recipe: Recipe, strategy: Strategy) -> None:
    temporary = step_temporaries(trained, recipe, strategy)
    if any(temporary):
        used = Storage(ledger, temporary, "temporaries", "optimizer step")
        ledger.settle()
        ledger.mark("optimizer step")
        used.release()
    ledger.mark("end of the step")


def _log(ledger: Ledger, made: Size, *, kept: bool) -> None:
    """What the loop makes for its log; the gradients are gone, unless they are `kept` for the next micro batch."""
    gone = {} if kept else _gradients(ledger)
    for entry, size in gone.items():
        ledger.release(size, *entry)
    storage = Storage(ledger, made, "logits", "for the log")
    ledger.settle()
    storage.release()
    for entry, size in gone.items():
        ledger.book(size, *entry)


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
    beside: Others | None = None,
    held: list[Held] | None = None,
    begins: Callable[[], None] | None = None,
) -> list[Storage]:
    """Forward and backward; the tape then holds the gradients, the result is what stays beside them: the batch.

    `recipe` counts rows (`in_rows`); `held`: the root's parameters, where they have been counted already; `begins`: called when
    learning begins, by objectives in which something comes before.

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
    held, beside = held or held_parameters(root), beside or Others()
    batch += hooks.before_forward(tape, _ends(root), _placed(held))
    tape.handed.outputs = bound(tape, root, recipe)
    tape.handed.cache = [] if root.caches and recipe.use_cache and not prepared.checkpointing else None
    if not objective.generates:
        ledger.enter("forward")
    passes = Passes(
        tape,
        root,
        prepared,
        recipe,
        validity,
        beside.frozen,
        beside.value,
        begins=begins or (lambda: None),
        earlier=lambda: _book_gradients(ledger, held, recipe),
        updates=lambda other, run: _update(tape, other, validity, run),
    )
    loss = objective.loss(passes)
    hooks.after_forward(tape)
    returned(tape, recipe, loss)
    ledger.mark("loss")
    ledger.enter("backward")
    _run_backward(tape, loss)
    return batch


def _run_backward(tape: Tape, loss: Tensor) -> None:
    hooks = tape.hooks
    hooks.before_backward(tape)
    if tape.halves is not None:
        tape.halves.begin(tape.leaves)
    tape.backward(loss)
    hooks.after_backward(tape)
    tape.handed.end_backward()
    hooks.done(tape)
    tape.ledger.settle()
    tape.ledger.mark("end of backward")
    if tape.halves is not None:
        tape.halves.end()
    graph_ends(tape)


def _update(tape: Tape, other: Learner, validity: Validity, run: Callable[[], Tensor]) -> None:
    """A second learner's whole step, from its forward pass to the end of its gradients."""
    ledger, outer, recipe, held = tape.ledger, tape.hooks, other.prepared.recipe, held_parameters(other.root)
    tape.hooks = hooks = strategy_of(recipe, adapters=recipe.value.trains == "lora")
    before = _gradients(ledger)
    outer.set_aside(tape)
    ledger.enter("critic_forward")
    book_kept(ledger, other.root, held, recipe, validity, hooks)
    batch = hooks.before_forward(tape, _ends(other.root), _placed(held))
    _learn(tape, run)
    tape.end(*batch)
    ledger.enter("critic_optimizer")
    _take_step(ledger, trained_tensors(held, recipe), recipe, hooks)
    mine = {id(item.parameter) for item in held}
    storages = [tape.gradients.pop(key) for key in list(tape.gradients) if key[0] in mine]
    for entry, size in _gradients(ledger).items():
        left = size - before.get(entry, ZERO)
        for storage in storages:
            if (storage.category, storage.label) == entry:
                left = left - storage.size
        if any(left):  # of layers that were not walked, or this GPU's shares
            ledger.release(left, *entry)
    for storage in storages:
        storage.let_go()
    tape.hooks = outer
    outer.bring_back(tape)


def _learn(tape: Tape, run: Callable[[], Tensor]) -> None:
    loss = run()
    tape.hooks.after_forward(tape)
    tape.ledger.mark("loss")
    tape.ledger.enter("critic_backward")
    _run_backward(tape, loss)


def _book_gradients(ledger: Ledger, held: list[Held], recipe: Recipe) -> None:
    """Of mini batches before one, where those of earlier micro batches are not there already."""
    for item in held if recipe.gradient_accumulation_steps == 1 else ():
        if item.parameter.trainable and not item.parameter.idle:
            ledger.book(item.parameter.bytes * item.count, "gradients", "gradients: " + item.parameter.label)


def _gradients(ledger: Ledger) -> dict[Entry, Size]:
    return {entry: size for entry, size in ledger.entries.items() if entry[0] == "gradients"}


def _placed(held: Iterable[Held]) -> list[tuple[Parameter, int]]:
    return [(item.parameter, item.count) for item in held]


def _ends(root: Root) -> Ends:
    """Weights outside of the stacks, without what is a unit of its own: embeddings; norm and head."""
    first: dict[int, Parameter] = {}
    last: dict[int, Parameter] = {}
    for _, module in outside_stacks(root):
        apart = root.sharded_apart and (isinstance(module, Embedding) or root.is_head(module))
        if not isinstance(module, Stack) and not apart:
            found = first if isinstance(module, Embedding) else last
            found.update((id(parameter), parameter) for _, parameter in module.owned())
    if isinstance(root, CausalDecoder) and len(root.stacks()) == 1 and not first.keys() & last.keys():
        return Ends(list(first.values()), list(last.values()))
    return Ends((), list((first | last).values()), apart=False)


def _layers(root: Root) -> int:
    return sum(len(stack) for _, stack in root.stacks())

"""Every request of a step with its name, its phase, and what is alive when it is made.

The ledger's walk in which each layer is walked (`core.step.events`) keeps sizes without names; this one keeps the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.answer.explain import formula
from loralens.core.answer.plan import plan_for
from loralens.core.objectives.assembled import assemble, refuse_two
from loralens.core.parallel.table import strategy_of
from loralens.core.partition.rank import refuse_cut
from loralens.core.step.events import EventLedger
from loralens.core.step.held import placed_parameters
from loralens.core.step.rows import in_rows
from loralens.core.step.step import run_micro_batch
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import ZERO, Size, monomial_values
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe


@dataclass(frozen=True, slots=True)
class NamedRequest:
    """One tensor that a step asks memory for. `alive_bytes`: everything alive before it, weights and states included."""

    label: str
    category: str
    phase: str
    bytes: int
    alive_bytes: int
    formula: str


class NamedLedger(EventLedger):
    """Also keeps what each storage is called when it is born."""

    def __init__(self) -> None:
        super().__init__({})
        self.names: list[tuple[Size, str, str]] = []

    def book(self, size: Size, category: str, label: str) -> int:
        """A storage is born, with its name."""
        self.names.append((size, category, label))
        return super().book(size, category, label)


@dataclass(frozen=True, slots=True)
class NamedWalk:
    """One walk's storages and their births and releases, as polynomials: holds for other batches, lengths and ranks too.

    Attributes:
        names: size, category and label of each storage.
        events: the number of a storage that is born (from 1), or less than 0 of one that is released.
        backward: the event at which backward begins.
        validity: for which batches, lengths and ranks.
    """

    names: tuple[tuple[Size, str, str], ...]
    events: tuple[int, ...]
    backward: int
    validity: Validity


def named_requests(model: Model, method: str, recipe: Recipe) -> list[NamedRequest]:
    """The requests of one micro batch in their order.

    Raises:
        InvalidInput: a step of too many tensors.
        UnsupportedArchitecture: the step of this family is not modelled.
    """
    walk = named_walk(model, method, recipe)
    values = monomial_values(recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    sizes: dict[Size, int] = {}
    for size, _, _ in walk.names:
        if size not in sizes:
            sizes[size] = sum(c * v for c, v in zip(size, values, strict=True) if c)
    found = []
    alive = resting_bytes(model, method, recipe).at(recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    for place, event in enumerate(walk.events):
        size, category, label = walk.names[abs(event) - 1]
        if event > 0:
            phase = "backward" if place >= walk.backward else "forward"
            found.append(NamedRequest(label, category, phase, sizes[size], alive, formula(size)))
            alive += sizes[size]
        else:
            alive -= sizes[size]
    return found


def named_walk(model: Model, method: str, recipe: Recipe) -> NamedWalk:
    """One micro batch with every layer walked; raises what `named_requests` does."""
    refuse_cut(recipe)
    refuse_two(recipe)
    assembled = assemble(model.config, method, recipe)
    recipe = in_rows(assembled.recipe)
    validity = Validity(recipe)
    hooks = strategy_of(recipe, adapters=method != "full")
    ledger = NamedLedger()
    tape = Tape(
        ledger, validity=validity, hooks=hooks, every_layer=True, autocast=recipe.autocast, kernels=Kernels.of(recipe)
    )
    with hooks.in_use(placed_parameters(assembled.root)):
        run_micro_batch(tape, assembled.root, assembled.prepared, recipe, validity, assembled.beside)
    return NamedWalk(tuple(ledger.names), tuple(ledger.events), ledger.begins["backward"], validity)


def resting_bytes(model: Model, method: str, recipe: Recipe) -> Size:
    """Weights, adapter and states before the step begins."""
    point = plan_for(model, method, recipe).points[0].first
    wanted = ("weights", "adapter", "optimizer_state")
    return sum((size for (category, _), size in point.entries.items() if category in wanted), ZERO)

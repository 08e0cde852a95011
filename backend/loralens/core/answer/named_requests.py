"""Every request of a step with its name, its phase, and what is alive when it is made.

The ledger's walk in which each layer is walked (`core.step.events`) keeps sizes without names; this one keeps the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.answer.explain import formula
from loralens.core.answer.plan import plan_for
from loralens.core.objectives.assembled import assemble
from loralens.core.parallel.table import strategy_of
from loralens.core.partition.rank import refuse_cut
from loralens.core.step.events import EventLedger
from loralens.core.step.rows import in_rows
from loralens.core.step.step import placed_parameters, run_micro_batch, tape_words
from loralens.core.tape.size import Size, monomial_values
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
        super().__init__()
        self.names: list[tuple[Size, str, str]] = []

    def book(self, size: Size, category: str, label: str) -> int:
        """A storage is born, with its name."""
        self.names.append((size, category, label))
        return super().book(size, category, label)


def named_requests(model: Model, method: str, recipe: Recipe) -> list[NamedRequest]:
    """The requests of one micro batch in their order.

    Raises:
        InvalidInput: a step of too many tensors.
        UnsupportedArchitecture: the step of this family is not modelled.
    """
    refuse_cut(recipe)
    assembled, asked = assemble(model.config, method, recipe), recipe
    recipe = in_rows(assembled.recipe)
    validity = Validity(recipe)
    hooks = strategy_of(recipe, adapters=method != "full")
    ledger = NamedLedger()
    tape = Tape(ledger, validity=validity, hooks=hooks, every_layer=True, **tape_words(recipe))
    with hooks.in_use(placed_parameters(assembled.root)):
        run_micro_batch(tape, assembled.root, assembled.prepared, recipe, validity, assembled.beside)
    return _with_alive(ledger, recipe, _resting(model, method, asked))


def _resting(model: Model, method: str, recipe: Recipe) -> int:
    """Bytes that are there before the step begins: weights, adapter, states."""
    batch, sequence, rank = recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank
    plan = plan_for(model, method, recipe)
    point = plan.points[0].first
    wanted = ("weights", "adapter", "optimizer_state")
    return sum(size.at(batch, sequence, rank) for (category, _), size in point.entries.items() if category in wanted)


def _with_alive(ledger: NamedLedger, recipe: Recipe, resting: int) -> list[NamedRequest]:
    values = monomial_values(recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    sizes: dict[Size, int] = {}
    for size, _, _ in ledger.names:
        if size not in sizes:
            sizes[size] = sum(c * v for c, v in zip(size, values, strict=True) if c)
    found, alive = [], resting
    backward = ledger.begins["backward"]
    for place, event in enumerate(ledger.events):
        size, category, label = ledger.names[abs(event) - 1]
        if event > 0:
            phase = "backward" if place >= backward else "forward"
            found.append(NamedRequest(label, category, phase, sizes[size], alive, formula(size)))
            alive += sizes[size]
        else:
            alive -= sizes[size]
    return found

"""Every request of a step with its name and what is alive before it, of layers that are alike once.

`named_requests` walks each layer; this one takes as long as a plan. Of a run of like layers the first two and the last are walked,
and what is alive before the requests of those between changes by the same with each (`core.architecture.stack`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loralens.core.objectives.assembled import Assembled, assemble, refuse_two
from loralens.core.parallel.table import strategy_of
from loralens.core.partition.rank import refuse_cut
from loralens.core.step.held import held_parameters, placed_parameters
from loralens.core.step.rows import in_rows
from loralens.core.step.static import book_static
from loralens.core.step.step import run_micro_batch
from loralens.core.tape.ledger import Entry, Ledger, Recording, Totals
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import ZERO, Size, unpacked
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.parallel.strategy import Strategy
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe

STEP = ("forward", "backward")


@dataclass(frozen=True, slots=True)
class AskedRequest:
    """One request, for every batch, length and rank. `alive`: everything alive before it, weights and states included."""

    label: str
    category: str
    phase: str
    size: Size
    alive: Size


@dataclass(frozen=True, slots=True)
class Repeated:
    """Requests `start` to `end` (exclusive) come `times` more, each time with `change` more alive before them."""

    start: int
    end: int
    change: Size
    times: int


@dataclass(frozen=True, slots=True)
class AskedStep:
    """The requests of a step in their order, and which of them repeat."""

    requests: list[AskedRequest]
    repeated: list[Repeated]
    validity: Validity


@dataclass(slots=True)
class AskedLedger(Totals):
    """Writes down what is asked for in forward and backward."""

    requests: list[AskedRequest] = field(default_factory=list)
    repeated: list[Repeated] = field(default_factory=list)
    _starts: dict[int, int] = field(default_factory=dict)

    def book(self, size: Size, category: str, label: str) -> int:
        """A storage is born."""
        if self.phase in STEP:
            self.requests.append(AskedRequest(label, category, self.phase, size, unpacked(self.packed)))
        return Totals.book(self, size, category, label)

    def record(self) -> Recording:
        """A stretch begins that will be had once more."""
        recording = Totals.record(self)
        self._starts[id(recording)] = len(self.requests)
        return recording

    def again(self, recording: Recording, change: dict[Entry, Size], times: int, renamed: Callable[[str], str]) -> None:
        """It has been had `times` more."""
        whole = sum(change.values(), ZERO)
        self.repeated.append(Repeated(self._starts[id(recording)], len(self.requests), whole, times))
        Totals.again(self, recording, change, times, renamed)


def asked_step(model: Model, method: str, recipe: Recipe) -> AskedStep:
    """One micro batch of a recipe.

    Raises:
        InvalidInput, UnsupportedArchitecture: a step that is not modelled.
    """
    refuse_cut(recipe)
    refuse_two(recipe)
    assembled = assemble(model.config, method, recipe)
    recipe = in_rows(assembled.recipe)
    ledger, validity = AskedLedger(), Validity(recipe)
    hooks = _book_resting(ledger, assembled, recipe, validity, method)
    tape = Tape(ledger, validity=validity, hooks=hooks, autocast=recipe.autocast, kernels=Kernels.of(recipe))
    with hooks.in_use(placed_parameters(assembled.root)):
        run_micro_batch(tape, assembled.root, assembled.prepared, recipe, validity, assembled.beside)
    return AskedStep(ledger.requests, ledger.repeated, validity)


def resting(model: Model, method: str, recipe: Recipe) -> Size:
    """Weights, adapter and states on the device before a step begins; raises what `asked_step` does."""
    assembled, ledger = assemble(model.config, method, recipe), Totals()
    _book_resting(ledger, assembled, in_rows(assembled.recipe), Validity(recipe), method)
    return ledger.total


def _book_resting(ledger: Ledger, assembled: Assembled, recipe: Recipe, validity: Validity, method: str) -> Strategy:
    hooks = strategy_of(recipe, adapters=method != "full")
    book_static(ledger, assembled.root, held_parameters(assembled.root), recipe, validity, hooks)
    return hooks

"""A plan: the whole step as integer coefficients, for one model, method and set of switches.

Evaluated with numbers it is the estimate; with NumPy arrays a sweep; as JSON the browser evaluates it while a slider
moves. `bytes = sum over monomials of coefficient * B^i * S^j * r^k`; a peak is the largest of a phase's moments. It holds
within the ranges `valid`, and where `remainders` names a variable only for values that leave the same remainder.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, cast

from loralens.core.tape.ledger import CATEGORIES, Moment, TimelinePoint
from loralens.core.tape.size import MONOMIALS, VARIABLES, Size, monomial_values
from loralens.core.tape.traffic import Traffic
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.answer.plan_shapes import PlanNumbers, PlanRanges, PlanRemainders
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.held import Held
    from loralens.core.step.peaks import Peaks


Terms = tuple[tuple[int, int], ...]
"""(monomial, coefficient) of those that are not zero."""


@dataclass(frozen=True, slots=True)
class _ByPhase:
    """A plan's moments as `peaks` reads them."""

    phases: dict[str, int]  # in the order in which they begin; no bytes yet
    moments: list[tuple[str, list[tuple[Moment, Terms]]]]  # in their order, those of a phase together

    @staticmethod
    def of(plan: CompiledPlan) -> _ByPhase:
        """Read once: a plan is evaluated many times."""
        pairs = zip(plan.moments, plan.terms, strict=True)
        runs = [(phase, list(own)) for phase, own in groupby(pairs, lambda pair: pair[0].phase)]
        return _ByPhase(dict.fromkeys(plan.phases, 0), runs)


@dataclass(slots=True)
class CompiledPlan:
    """See the module's docstring. `moments` are the candidates for a peak, `points` the timeline."""

    method: str
    recipe: Recipe  # that it was compiled for, with everything named that the method chose itself
    regime: str
    assumptions: list[str]
    total: Size
    trainable: Size
    checkpoint_bytes: Size
    adapter_bytes: Size
    host_bytes: Size
    moments: list[Moment]
    points: list[TimelinePoint]
    validity: Validity
    held: list[Held]
    attention: dict[str, str] = field(default_factory=dict)  # kernels that were picked, and why
    traffic: Traffic = field(default_factory=Traffic)
    positions: int | None = None  # places in a learned table of positions
    media: tuple[str, ...] = ()  # the words of pictures and sound that mean something to this model
    least_length: int = 1  # holds its pictures and sound; at a shorter one transformers stops with an error
    base_parameters: int | None = None  # the model's own, where they were built as today's transformers does
    terms: list[Terms] = field(default_factory=list)  # of each moment's total
    also: Peaks | None = None  # on the accelerator that was asked for beside, where the same walk told
    traced_with: str = ""  # the libraries of a plan that was made by tracing; empty: it was computed
    _read: _ByPhase | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def basis(self) -> str:
        """`computed` or `traced`."""
        return "traced" if self.traced_with else "computed"

    def used(self, recipe: Recipe) -> Recipe:
        """A recipe that the plan covers, with everything named that the method chose itself: its target modules, its packing."""
        return named_at(self.recipe, recipe)

    @property
    def phases(self) -> list[str]:
        """The phases in the order in which they begin."""
        return list(dict.fromkeys(point.phase for point in self.points if point.phase != "setup"))

    def peaks(self, batch: int, sequence: int, rank: int) -> tuple[dict[str, int], Moment, int]:
        """Peak bytes by phase, and the moment of the overall peak with its bytes."""
        values = monomial_values(batch, sequence, rank)
        if self._read is None:
            self._read = _ByPhase.of(self)
        phases = self._read.phases.copy()
        best, best_bytes = self.moments[0], -1
        for phase, moments in self._read.moments:
            highest, found = phases[phase], None
            for moment, terms in moments:
                size = 0
                for index, coefficient in terms:
                    size += coefficient * values[index]
                if size > highest:
                    highest, found = size, moment
            phases[phase] = highest
            if found is not None and highest > best_bytes:
                best, best_bytes = found, highest
        return phases, best, best_bytes

    def to_dict(self) -> PlanNumbers:
        """The plan's own part of the contract's JSON."""
        return {
            "variables": list(VARIABLES),
            "valid": cast("PlanRanges", {name: list(bounds) for name, bounds in self.validity.ranges.items()}),
            "remainders": cast("PlanRemainders", {name: list(pair) for name, pair in self.validity.remainders.items()}),
            "monomials": [list(exponents) for exponents in MONOMIALS],
            "categories": list(CATEGORIES),
            "parameters": {"total": list(self.total), "trainable": list(self.trainable)},
            "storage": {
                "checkpoint_bytes": list(self.checkpoint_bytes),
                "adapter_file_bytes": list(self.adapter_bytes),
            },
            "host_bytes": list(self.host_bytes),
            "moments": [
                {"phase": moment.phase, "label": moment.label, "bytes": _rows(moment)} for moment in self.moments
            ],
            "timeline": [
                {
                    "phase": point.phase,
                    "label": point.label,
                    "repeat": point.repeat,
                    "first": _rows(point.first),
                    "last": _rows(point.last),
                }
                for point in self.points
            ],
        }


def named_at(named: Recipe, recipe: Recipe) -> Recipe:
    """A recipe in which everything is named, at another one's batch, length and rank."""
    lora, rank, alpha = named.lora, recipe.lora.rank, recipe.lora.alpha
    if (lora.rank, lora.alpha) != (rank, alpha):
        lora = replace(lora, rank=rank, alpha=alpha)
    return named.at(recipe.micro_batch_size, recipe.sequence_length, lora)


def _rows(moment: Moment) -> list[list[int]]:
    return [list(size) for size in moment.by_category()]

"""How fast a step runs on a card: seconds with a band and by part, and tokens a second.

The band holds four of five published runs that had no part in fitting (docs/accuracy-time.md). Where the processor sets the
pace, the answer is a range over published machines' processors and not one number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loralens.core import catalogue
from loralens.core.answer.counted import counted_for
from loralens.core.answer.pace_notes import notes_of, unmeasured
from loralens.core.objectives.table import objective_of
from loralens.core.partition.rank import is_cut
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.time.rates import Share, known, share_of
from loralens.core.time.step_time import StepTime, TimePlan

if TYPE_CHECKING:
    from loralens.core.answer.pace_shapes import StepPace
    from loralens.core.catalogue import Gpu
    from loralens.core.question.model import Model
    from loralens.core.time.pipeline import PipelineTime

HOST_DECIDES: Final = 1.1
"""A step that takes so many times longer on the slowest published machine's processor is a range, not a number: an assumption.
On large cards that is below about a thousand tokens a micro-batch."""
NEARLY_FULL: Final = 0.986
"""Published runs above this share of a card's memory took 6 to 40 % longer than the same step with fewer bytes.
Source: foundation-model-stack/fms-acceleration scripts/benchmarks/refs/a100_80gb.csv @876e2ed6fc, five runs."""


@dataclass(frozen=True, slots=True)
class Pace:
    """One step on every card together. `low` and `high`: factors on the time; `ranged`: the processor decides."""

    step: StepTime
    low_seconds: float
    high_seconds: float
    tokens: int
    basis: Share
    ranged: bool
    notes: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float:
        """Of all cards together, padding included."""
        return self.tokens / self.step.seconds

    def to_dict(self) -> StepPace:
        """The contract's `step_seconds` and `tokens_per_second`."""
        return {
            "step_seconds": {
                "expected": self.step.seconds,
                "low": self.low_seconds,
                "high": self.high_seconds,
                "parts": {name: value for name, value in self.step.parts.items() if value > 0},
                "basis": self.basis.basis,
                "range": self.ranged,
            },
            "tokens_per_second": {
                "expected": self.tokens_per_second,
                "low": self.tokens / self.high_seconds,
                "high": self.tokens / self.low_seconds,
            },
        }


def pace_on(model: Model, method: str, recipe: Recipe, gpu: Gpu) -> Pace | None:
    """A step's time on a card; None where the card's rates or the strategy's time are not known.

    Raises:
        UnsupportedArchitecture: the step is not modelled.
    """
    cached = recipe.objective.type == "contrastive" and recipe.objective.mini_batch_size is not None
    if model.traced is not None or cached:  # what its operators do was not counted
        return None
    counted = counted_for(model, method, recipe)
    times = counted.time_on(gpu, recipe)
    return None if times is None else _pace(times, counted.used(recipe), gpu)


def paces(body: Mapping[str, Any], estimates: Iterable[Mapping[str, Any]]) -> list[Pace | None]:
    """The pace of every estimate of an answer on the one card that its body names."""
    model, gpu = resolve(body.get("model"), body.get("config")), catalogue.gpu(str(body["gpu"]))
    return [pace_on(model, row["method"], Recipe.from_mapping(row["recipe"]), gpu) for row in estimates]


def _pace(times: TimePlan | PipelineTime, recipe: Recipe, gpu: Gpu) -> Pace:
    rates, share = known(), share_of(gpu)
    found = times.set(recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    step = found.step()
    low, high = _band(recipe, share)
    quick, slow = (found.step(host) for host in rates.host)
    ranged = slow.seconds > HOST_DECIDES * step.seconds
    if not ranged:
        quick = slow = step
    notes = tuple(notes_of(share, recipe, gpu, ranged=ranged))
    return Pace(step, quick.seconds * low, slow.seconds * high, tokens_per_step(recipe), share, ranged, notes)


def tokens_per_step(recipe: Recipe) -> int:
    """Of all GPUs together, padding included."""
    p = recipe.parallelism
    samples = objective_of(recipe).rows * recipe.micro_batch_size * recipe.gradient_accumulation_steps
    return samples * recipe.sequence_length * (p.data_parallel // p.cp)


def _band(recipe: Recipe, share: Share) -> tuple[float, float]:
    """Factors on the time: of the card, and of how its work is cut."""
    bands = known().bands
    own = [bands["other" if share == known().other else share.basis]]
    if is_cut(recipe):
        own.append(bands["unmeasured" if unmeasured(recipe) else "cut"])
    return min(band.low for band in own), max(band.high for band in own)

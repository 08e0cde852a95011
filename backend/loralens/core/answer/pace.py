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
from loralens.core.answer.rollout_time import rollout_on, stalled
from loralens.core.objectives.table import objective_of
from loralens.core.partition.rank import is_cut
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.core.time.floats import added
from loralens.core.time.rates import Band, Share, known, share_of
from loralens.core.time.step_time import COMMUNICATION, StepTime, TimePlan, by_phase

if TYPE_CHECKING:
    from loralens.core.answer.pace_shapes import Exchange, IterationPace, PhaseSeconds, StepPace
    from loralens.core.answer.rollout_time import RolloutTime
    from loralens.core.catalogue import Gpu
    from loralens.core.question.model import Model
    from loralens.core.time.pipeline import PipelineTime, SetPipeline
    from loralens.core.time.step_time import SetTime

HOST_DECIDES: Final = 1.1
"""A step that takes so many times longer on the slowest published machine's processor is a range, not a number: an assumption.
On large cards that is below about a thousand tokens a micro-batch."""
HOUR: Final = 3600
NEARLY_FULL: Final = 0.986
"""Published runs above this share of a card's memory took 6 to 40% longer than the same step with fewer bytes.
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
    learned: Learned
    rollout: RolloutTime | None

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
                "transfers": [
                    {
                        "over": row.over,
                        "way": row.way,
                        "between_machines": row.leaves,
                        "bytes_per_second": row.bytes_per_second,
                        "seconds": seconds,
                    }
                    for row, seconds in self.learned.times.transfers()
                ],
                "exchange": self.exchange(),
            },
            "tokens_per_second": {
                "expected": self.tokens_per_second,
                "low": self.tokens / self.high_seconds,
                "high": self.tokens / self.low_seconds,
            },
            "iteration": self.iteration(),
        }

    def exchange(self) -> Exchange:
        """What a step spends between GPUs: waiting for transfers, and what sharding adds beside them."""
        waited = float(self.learned.times.waited())
        return {"waited": waited, "sharding": max(0.0, self.step.parts[COMMUNICATION] - waited)}

    def iteration(self) -> IterationPace:
        """What repeats: this step; with a rollout, one generation and every step that learns from it."""
        steps = self.learned.steps(self.rollout)
        before = {} if self.rollout is None else self.rollout.before_learning()
        phases: list[PhaseSeconds] = [
            {"phase": name, "expected": ends[0] * times, "low": ends[1] * times, "high": ends[2] * times}
            for group, times in ((before, 1.0), (self.learned.phases(), steps))
            for name, ends in group.items()
        ]
        p = self.learned.recipe.parallelism
        done = round(self.learned.samples * steps) * (p.data_parallel // p.cp)
        expected, low, high = (seconds * steps for seconds in (self.step.seconds, self.low_seconds, self.high_seconds))
        return {
            "steps": steps,
            "samples": done,
            "at_once": None if self.rollout is None else self.rollout.at_once,
            "seconds": {"expected": expected, "low": low, "high": high},
            "samples_per_hour": {
                "expected": done * HOUR / expected,
                "low": done * HOUR / high,
                "high": done * HOUR / low,
            },
            "phases": phases,
        }


def pace_on(model: Model, method: str, recipe: Recipe, gpu: Gpu) -> Pace | None:
    """A step's time on a card; None where the card's rates or the strategy's time are not known, or the run cannot start.

    Raises:
        UnsupportedArchitecture: the step is not modelled.
    """
    cached = recipe.objective.type == "contrastive" and recipe.objective.mini_batch_size is not None
    if model.traced is not None or cached:  # what its operators do was not counted
        return None
    if stalled(model, method, recipe, gpu):
        return None
    counted = counted_for(model, method, recipe)
    times = counted.time_on(gpu, recipe)
    if times is None:
        return None
    used, share = counted.used(recipe), share_of(gpu)
    learned = _learned(times, used, _band(used, share))
    return _pace(learned, share, gpu, *rollout_on(model, method, recipe, gpu, learning=learned.band))


def paces(body: Mapping[str, Any], estimates: Iterable[Mapping[str, Any]]) -> list[Pace | None]:
    """The pace of every estimate of an answer on the one card that its body names."""
    model, gpu = resolve(body.get("model"), body.get("config")), catalogue.gpu(str(body["gpu"]))
    return [pace_on(model, row["method"], Recipe.from_mapping(row["recipe"]), gpu) for row in estimates]


@dataclass(frozen=True, slots=True)
class Learned:
    """A step without what generates its completions: expected, quickest and slowest, each with its processor."""

    times: SetTime | SetPipeline
    hosts: tuple[float, float, float]
    steps_taken: tuple[StepTime, StepTime, StepTime]
    ranged: bool
    band: Band
    recipe: Recipe

    @property
    def samples(self) -> int:
        """Of a step, on one card."""
        return self.recipe.micro_batch_size * self.recipe.gradient_accumulation_steps

    @property
    def ends(self) -> tuple[float, float]:
        """Seconds at both ends of the band."""
        return self.steps_taken[1].seconds * self.band.low, self.steps_taken[2].seconds * self.band.high

    def steps(self, rollout: RolloutTime | None) -> float:
        """How many learn from one generation; one where nothing generates."""
        return 1.0 if rollout is None else rollout.rows / self.samples

    def phases(self) -> dict[str, tuple[float, float, float]]:
        """Seconds of each phase: expected, and at the ends of its band."""
        expected, least, most = (
            by_phase(step, self.times.shares(host)) for step, host in zip(self.steps_taken, self.hosts, strict=True)
        )
        return {
            name: (seconds, least[name] * self.band.low, most[name] * self.band.high)
            for name, seconds in expected.items()
            if seconds > 0
        }


def _learned(times: TimePlan | PipelineTime, recipe: Recipe, band: Band) -> Learned:
    hosts = 1.0, *known().host
    found = times.set(recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    step, quick, slow = (found.step(host) for host in hosts)
    if slow.seconds > HOST_DECIDES * step.seconds:
        return Learned(found, hosts, (step, quick, slow), True, band, recipe)
    return Learned(found, (1.0, 1.0, 1.0), (step, step, step), False, band, recipe)


def _pace(learned: Learned, share: Share, gpu: Gpu, rollout: RolloutTime | None, said: list[str]) -> Pace:
    """The step with its share of what generates; `said`: of the rollout."""
    step, (low, high), ranged = learned.steps_taken[0], learned.ends, learned.ranged
    if rollout is not None:
        steps, before = learned.steps(rollout), rollout.before_learning()
        more = [added(ends[place] for ends in before.values()) / steps for place in range(3)]
        parts = {**step.parts, **{name: ends[0] / steps for name, ends in before.items()}}
        step, low, high = StepTime(step.seconds + more[0], parts), low + more[1], high + more[2]
        ranged = ranged or rollout.slowed > HOST_DECIDES
    notes = (*notes_of(share, learned.recipe, gpu, ranged=ranged), *said)
    return Pace(step, low, high, tokens_per_step(learned.recipe), share, ranged, notes, learned, rollout)


def tokens_per_step(recipe: Recipe) -> int:
    """Of all GPUs together, padding included."""
    p = recipe.parallelism
    samples = objective_of(recipe).rows * recipe.micro_batch_size * recipe.gradient_accumulation_steps
    return samples * recipe.sequence_length * (p.data_parallel // p.cp)


def _band(recipe: Recipe, share: Share) -> Band:
    """Factors on the time: of the card, and of how its work is cut."""
    bands = known().bands
    own = [bands["other" if share == known().other else share.basis]]
    if is_cut(recipe):
        own.append(bands["unmeasured" if unmeasured(recipe) else "cut"])
    return Band(min(band.low for band in own), max(band.high for band in own), own[-1].source)

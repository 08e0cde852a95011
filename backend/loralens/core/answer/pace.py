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
from loralens.core.objectives.table import objective_of
from loralens.core.question.model import resolve
from loralens.core.question.packings import BY_GROUPS
from loralens.core.question.recipe import Recipe
from loralens.core.time.communication import link_of
from loralens.core.time.rates import CLASS, Share, bandwidth_of, known, share_of
from loralens.core.time.step_time import COMMUNICATION, StepTime, TimePlan

if TYPE_CHECKING:
    from loralens.core.answer.pace_shapes import StepPace
    from loralens.core.catalogue import Gpu
    from loralens.core.question.model import Model

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


def _pace(times: TimePlan, recipe: Recipe, gpu: Gpu) -> Pace:
    rates, share = known(), share_of(gpu)
    setting = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    step = times.at(*setting)
    per_card = objective_of(recipe).rows * recipe.micro_batch_size * recipe.sequence_length
    band = rates.bands["other" if share == rates.other else share.basis]
    quick, slow = (times.at(*setting, host=host) for host in rates.host)
    ranged = slow.seconds > HOST_DECIDES * step.seconds
    if not ranged:
        quick = slow = step
    tokens = per_card * recipe.gradient_accumulation_steps * recipe.parallelism.gpus
    notes = tuple(_notes(step, share, recipe, gpu, ranged=ranged))
    return Pace(step, quick.seconds * band.low, slow.seconds * band.high, tokens, share, ranged, notes)


def _notes(step: StepTime, share: Share, recipe: Recipe, gpu: Gpu, *, ranged: bool) -> list[str]:
    said = [
        "the time adds up the step's operations at rates fitted on published runs; four of five such runs lie within its band "
        "(docs/accuracy-time.md)"
    ]
    if share.basis == CLASS:
        said.append(
            f"no published run on {gpu.name} is known: large products are taken to reach {share.value:.0%} of its peak, as a guess "
            f"by its class ({share.source})"
        )
    if gpu.memory_bandwidth_bytes_per_second is None:
        bandwidth = bandwidth_of(gpu, recipe.autocast or recipe.weights_dtype) or 0
        said.append(
            f"the bandwidth of {gpu.name} is not known: {bandwidth / 1e9:,.0f} GB/s are assumed, as cards of its rate have"
        )
    if ranged:
        said.append(
            "so short a step waits for the processor, whose speed is not known: the range goes from the quickest to the slowest "
            "machine with published runs"
        )
    if step.parts[COMMUNICATION] > 0 and recipe.parallelism.gpus > 1:
        rate, _ = link_of(gpu, known().constants)
        said.append(
            f"{rate / 1e9:.0f} GB/s between two cards are assumed; published machines differ threefold over PCIe"
        )
    if recipe.quantization is not None and recipe.quantization.type in BY_GROUPS:
        said.append(
            "GPTQ weights are unpacked by torch operations; with a Triton kernel that takes a third of the time"
        )
    return said

"""How long a fine-tuning takes and what it costs.

Two answers, never one: the least time (operations at the fastest rate that measurements of plain matrix products reached, or
at the vendor's peak where none is known), and the time to expect, which adds up the step's operations at rates fitted on
published runs (`core.answer.pace`) or, where a share of the peak is given, divides by that. What is not known stays None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from loralens.core.answer.pace import Pace, pace_on
from loralens.core.answer.rollout_time import stalled
from loralens.core.catalogue import MARKETS, ON_DEMAND, Gpu
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.objectives.table import objective_of
from loralens.core.question.recipe import Recipe
from loralens.planner.network import compute_dtype, network_of
from loralens.planner.question import Question
from loralens.planner.work import reasons, training_work

if TYPE_CHECKING:
    from loralens.core.answer.pace_shapes import IterationPace
    from loralens.core.catalogue import Price
    from loralens.planner.shapes import GpuHours, Rate, Said, TrainingCost, TrainingRun, TrainingTime


MAX_TOKENS: Final = 10**18
LEAST_UTILIZATION: Final = 0.001
"""Assumption: a run below a thousandth of the peak is broken; a smaller share would be a slip of the pen."""
SECONDS_PER_HOUR: Final = 3600


MARKET_NOTES: Final = {
    ON_DEMAND: "",
    "spot": "spot: the machine can be taken away; what is lost and done again then is in neither time nor cost",
    "reserved": "reserved: the price holds for a contract of months or years, whose other hours are paid too",
}


STALLED: Final = (
    "The engine cannot start: its share of this card does not hold its weights and one whole sequence. A run that cannot start has "
    "no time and no cost."
)

ON_A_DRIVE: Final = (
    "What every step reads from the drive and writes to it can take most of its time, and depends on the drive: neither time nor "
    "cost is given."
)

STOPPED: Final = "The sequence is too short for the pictures, video or sound of a sample. Training stops with an error: there is no time and no cost."


def withheld(question: Question, device: Gpu) -> Said | None:
    """Why nothing is said of this run's time, not even of a step's; None where nothing speaks against it."""
    if stalled(question.model, question.method, question.recipe, device):
        return {"key": "engine", "en": STALLED}
    if not question.estimate().holds_media:
        return {"key": "length", "en": STOPPED}
    if question.estimate().host.drive:
        return {"key": "drive", "en": ON_A_DRIVE}
    return None


def training_time(
    question: Question, device: Gpu, tokens: int, utilization: float | None = None, market: str = ON_DEMAND
) -> TrainingTime:
    """Operations, GPU hours and cost of training on that many tokens.

    Args:
        question: model, method and recipe.
        device: whose rates and prices are used.
        tokens: of all samples and epochs together, padding included.
        utilization: share of the dense peak to expect, in [0.001, 1]; computed from the step's operations when None.
        market: whose prices `cost` has: on-demand, spot or reserved; they are never mixed.

    Raises:
        InvalidInput: tokens or utilization out of range, or a market of another name.
        UnsupportedArchitecture: the model's operations per token are not known.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= MAX_TOKENS:
        raise InvalidInput(
            f"tokens must be between 1 and 10^18, got {tokens!r:.40}", field="tokens", hint="try 10000000"
        )
    if utilization is not None and not (_is_number(utilization) and LEAST_UTILIZATION <= utilization <= 1):
        raise InvalidInput(
            f"utilization must be from {LEAST_UTILIZATION} to 1, got {utilization!r:.40}",
            field="utilization",
            hint="try 0.4",
        )
    if market not in MARKETS:
        raise InvalidInput(
            f"market must be one of {', '.join(MARKETS)}, got {market!r:.40}", field="market", hint="try market=spot"
        )
    if question.model.traced is not None:
        raise UnsupportedArchitecture(
            "not known: a traced plan has the bytes of a step and not its operations",
            field="config.traced_plan",
            hint="loralens bench or a run of some steps says it",
        )
    recipe = question.recipe
    work = training_work(network_of(question), gradient_checkpointing=recipe.gradient_checkpointing)
    dtype = compute_dtype(recipe)
    flops = work.total * tokens
    why = withheld(question, device)
    pace = None if why else pace_on(question.model, question.method, recipe, device)
    rates = _rates(device, dtype, utilization, None if pace is None else pace.tokens_per_second * work.total, recipe)
    hours = UNKNOWN.copy() if why else _hours(rates, flops, pace, tokens, recipe.parallelism.gpus)
    paced = None if pace is None else pace.to_dict()
    return {
        "tokens": tokens,
        "flops_per_token": work.to_dict(),
        "flops": flops,
        "reasons": reasons(question.method, gradient_checkpointing=recipe.gradient_checkpointing),
        "gpu": {"id": device.id, "name": device.name},
        "rate": rates,
        "step_seconds": paced and paced["step_seconds"],
        "tokens_per_second": paced and paced["tokens_per_second"],
        "iteration": paced and paced["iteration"],
        "run": _run(question, tokens, paced and paced["iteration"]),
        "withheld": why,
        "gpu_hours": hours,
        "cost": _cost(device, hours, [market]),
        "cost_elsewhere": _cost(device, hours, [other for other in MARKETS if other != market]),
        "assumptions": [
            *([] if why else _assumptions(device, dtype, rates, pace, recipe.parallelism.gpus)),
            *([] if why else _of_market(device, market)),
        ],
    }


def _run(question: Question, tokens: int, iteration: IterationPace | None) -> TrainingRun:
    """Samples, optimizer steps and iterations of the whole training, of all cards together; a part of one counts as one."""
    recipe = question.recipe
    samples = -(-tokens // (objective_of(recipe).rows * recipe.sequence_length))
    step = (
        recipe.micro_batch_size
        * recipe.gradient_accumulation_steps
        * (recipe.parallelism.data_parallel // recipe.parallelism.cp)
    )
    return {
        "samples": samples,
        "steps": -(-samples // step),
        "iterations": None if iteration is None else -(-samples // iteration["samples"]),
    }


UNKNOWN: Final[GpuHours] = {"least": None, "expected": None, "low": None, "high": None}


def _hours(rates: Rate, flops: float, pace: Pace | None, tokens: int, gpus: int) -> GpuHours:
    """GPU hours: the least, those to expect, and the ends of the band around them."""
    least = rates["least_flops_per_second"]
    hours = UNKNOWN.copy()
    if least is not None:
        hours["least"] = flops / least / SECONDS_PER_HOUR
    if rates["utilization_basis"] == "given":
        expected = rates["expected_flops_per_second"]
        hours["expected"] = None if expected is None else flops / expected / SECONDS_PER_HOUR
    elif pace is not None:
        steps = tokens / pace.tokens * gpus / SECONDS_PER_HOUR
        hours |= {
            "expected": pace.step.seconds * steps,
            "low": pace.low_seconds * steps,
            "high": pace.high_seconds * steps,
        }
        if hours["least"] is not None:
            hours["least"] = min(hours["least"], pace.low_seconds * steps)
    return hours


def gpu_hours(device: Gpu, dtype: str, flops: float, utilization: float) -> float | None:
    """GPU hours for that many operations at a share of the peak; None where the card's rate is not known."""
    peak = device.dense_flops_per_second.get(dtype)
    return None if peak is None else flops / (peak * utilization) / SECONDS_PER_HOUR


def _rates(device: Gpu, dtype: str, utilization: float | None, computed: float | None, recipe: Recipe) -> Rate:
    """`computed`: operations a second of all cards together, as the step's time gives them."""
    peak = device.dense_flops_per_second.get(dtype)
    achievable = device.achievable_flops_per_second.get(dtype)
    expected = None if computed is None else computed / recipe.parallelism.gpus
    if utilization is not None:
        expected = None if peak is None else peak * utilization
    share = expected / peak if utilization is None and expected is not None and peak else utilization
    return {
        "dtype": dtype,
        "dense_flops_per_second": peak,
        "achievable_flops_per_second": achievable,
        "achievable_source": device.achievable_source if achievable else None,
        "utilization": share,
        "utilization_basis": "computed" if utilization is None else "given",
        "least_flops_per_second": achievable or peak,
        "expected_flops_per_second": expected,
    }


def _cost(device: Gpu, hours: GpuHours, markets: Sequence[str]) -> list[TrainingCost]:
    """One row per published price, market by market, the cheapest first; no row where no price is known."""
    return [
        {
            "usd_per_gpu_hour": price.usd_per_gpu_hour,
            "market": price.market,
            "provider": price.provider,
            "source": price.source,
            "date": price.date,
            "least_usd": _dollars(hours["least"], price),
            "expected_usd": _dollars(hours["expected"], price),
            "low_usd": _dollars(hours["low"], price),
            "high_usd": _dollars(hours["high"], price),
        }
        for market in markets
        for price in device.prices_of(market)
    ]


def _dollars(hours: float | None, price: Price) -> float | None:
    return None if hours is None else hours * price.usd_per_gpu_hour


def _assumptions(device: Gpu, dtype: str, rates: Rate, pace: Pace | None, gpus: int) -> list[str]:
    said = [] if pace is None or rates["utilization_basis"] == "given" else list(pace.notes)
    if gpus > 1 and rates["utilization_basis"] == "given":
        said.append("GPU hours do not depend on how many GPUs share the work: perfect scaling is assumed")
    if rates["dense_flops_per_second"] is None:
        said.append(f"the {dtype} rate of {device.name} is not known, so neither are time and cost")
    elif rates["achievable_flops_per_second"] is None:
        said.append(f"no measured {dtype} rate is known for {device.name}: the least time uses the vendor's peak")
    if pace is None and rates["dense_flops_per_second"] is not None:
        said.append("the time of this step is not known: what its strategy costs is not modelled")
    return said


def _of_market(device: Gpu, market: str) -> list[str]:
    """What a market's prices mean, or that none is known."""
    if device.prices_of(market):
        return [MARKET_NOTES[market]] if MARKET_NOTES[market] else []
    if device.prices:
        return [f"no {market} price of {device.name} is known"]
    return [f"no price of {device.name} is known"]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

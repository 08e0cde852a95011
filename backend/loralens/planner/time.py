"""How long a fine-tuning takes and what it costs: operations, divided by a rate that somebody measured or we assume.

Two answers, never one: the least time (at the fastest rate that measurements of plain matrix products reached, or at
the vendor's peak where none is known), and the time at a stated share of the peak. What is not known stays None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loralens.core.catalogue import Gpu
from loralens.core.errors import InvalidInput
from loralens.planner.network import compute_dtype, network_of
from loralens.planner.question import Question
from loralens.planner.work import reasons, training_work

ASSUMED_UTILIZATION: Final = 0.4
"""Share of the dense peak that training reaches. An assumption: Llama 3's large runs report 0.38 to 0.43
(arXiv:2407.21783, table 4), PaLM 0.46 (arXiv:2204.02311, table 3); one GPU with short batches often reaches less."""

MAX_TOKENS: Final = 10**18
LEAST_UTILIZATION: Final = 0.001
"""Assumption: a run below a thousandth of the peak is broken; a smaller share would be a slip of the pen."""
SECONDS_PER_HOUR: Final = 3600


def training_time(question: Question, device: Gpu, tokens: int, utilization: float | None = None) -> dict[str, Any]:
    """Operations, GPU hours and cost of training on that many tokens.

    Args:
        question: model, method and recipe.
        device: whose rates and prices are used.
        tokens: of all samples and epochs together, padding included.
        utilization: share of the dense peak to expect, in [0.001, 1]; the assumption when None.

    Raises:
        InvalidInput: tokens or utilization out of range.
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
    recipe = question.recipe
    work = training_work(network_of(question), gradient_checkpointing=recipe.gradient_checkpointing)
    dtype = compute_dtype(recipe)
    flops = work.total * tokens
    rates = _rates(device, dtype, utilization)
    hours = gpu_hours(device, dtype, flops, utilization)
    return {
        "tokens": tokens,
        "flops_per_token": work.to_dict(),
        "flops": flops,
        "reasons": reasons(question.method),
        "gpu": {"id": device.id, "name": device.name},
        "rate": rates,
        "gpu_hours": hours,
        "cost": _cost(device, hours),
        "assumptions": _assumptions(device, dtype, rates),
    }


def gpu_hours(device: Gpu, dtype: str, flops: float, utilization: float | None = None) -> dict[str, float | None]:
    """GPU hours for that many operations: the least, and those to expect; None where the GPU's rate is not known."""
    rates = _rates(device, dtype, utilization)
    return {
        name: None if rates[rate] is None else flops / rates[rate] / SECONDS_PER_HOUR
        for name, rate in (("least", "least_flops_per_second"), ("expected", "expected_flops_per_second"))
    }


def _rates(device: Gpu, dtype: str, utilization: float | None) -> dict[str, Any]:
    peak = device.dense_flops_per_second.get(dtype)
    achievable = device.achievable_flops_per_second.get(dtype)
    share = ASSUMED_UTILIZATION if utilization is None else utilization
    return {
        "dtype": dtype,
        "dense_flops_per_second": peak,
        "achievable_flops_per_second": achievable,
        "achievable_source": device.achievable_source if achievable else None,
        "utilization": share,
        "utilization_basis": "assumption" if utilization is None else "given",
        "least_flops_per_second": achievable or peak,
        "expected_flops_per_second": None if peak is None else peak * share,
    }


def _cost(device: Gpu, hours: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """One row per published price, cheapest first; no row where no price is known."""
    return [
        {
            "usd_per_gpu_hour": price.usd_per_gpu_hour,
            "source": price.source,
            "date": price.date,
            **{
                f"{name}_usd": None if value is None else value * price.usd_per_gpu_hour
                for name, value in hours.items()
            },
        }
        for price in sorted(device.prices, key=lambda price: price.usd_per_gpu_hour)
    ]


def _assumptions(device: Gpu, dtype: str, rates: Mapping[str, Any]) -> list[str]:
    said = ["GPU hours do not depend on how many GPUs share the work: perfect scaling is assumed"]
    if rates["dense_flops_per_second"] is None:
        said.append(f"the {dtype} rate of {device.name} is not known, so neither are time and cost")
    elif rates["achievable_flops_per_second"] is None:
        said.append(f"no measured {dtype} rate is known for {device.name}: the least time uses the vendor's peak")
    if rates["utilization_basis"] == "assumption" and rates["dense_flops_per_second"] is not None:
        said.append(
            f"training reaches {ASSUMED_UTILIZATION:.0%} of the peak; published large runs report 38 to 46 %, "
            "a single GPU with short batches often less"
        )
    if not device.prices:
        said.append(f"no price of {device.name} is known")
    return said


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

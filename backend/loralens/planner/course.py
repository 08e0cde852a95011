"""The ledger of the course's numbers: printed, reproduced by its rule, exact, and what to make of it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from loralens.core.answer.estimate import Estimate, estimate
from loralens.core.catalogue import ON_DEMAND, gpu, model
from loralens.core.tape.ledger import CATEGORIES
from loralens.core.texts import Both
from loralens.planner import textbook
from loralens.planner.course_chinese import in_chinese
from loralens.planner.course_verdicts import GIB_AS_GB, VERDICTS
from loralens.planner.textbook import Figure
from loralens.planner.texts import TEXTS
from loralens.planner.time import gpu_hours
from loralens.planner.work import Network, training_work

if TYPE_CHECKING:
    from loralens.planner.course_shapes import CourseAnswer, CourseNumber


GIB: Final = 2**30
REGIME: Final = "Llama-2-7B, batch 1 × 2048, AdamW (fused), no checkpointing"
KEPT: Final = {"gradient_checkpointing": False}
"""The course stores every activation: it comes before gradient checkpointing."""
FLOAT32: Final = {"weights_dtype": "float32", "autocast": None, "gradient_checkpointing": False}

# The course names neither a data set nor a GPU. These make its last example concrete; they are assumptions.
EXAMPLE_TOKENS: Final = 10_000 * 512 * 3
EXAMPLE_UTILIZATION: Final = 0.4
"""Share of the dense peak that training reaches. An assumption: Llama 3's large runs report 0.38 to 0.43
(arXiv:2407.21783, table 4), PaLM 0.46 (arXiv:2204.02311, table 3). The course's example names no step to compute."""
EXAMPLE_PARAMETERS: Final = 17_500_000_000
EXAMPLE_GPU: Final = "a100-sxm4-80"
ASSUMED: Final = "computed from assumptions"
EXAMPLE: Final = "17.5e9 parameters, assumed: 10,000 samples × 512 tokens × 3 epochs on an A100 80GB at 40% of its peak"


class ExactValue(NamedTuple):
    """An exact value: number and unit, text in both languages, and for which model and set-up it holds."""

    value: float | None
    unit: str
    text: Both
    regime: str
    basis: str = "computed"


@cache
def course_answer() -> CourseAnswer:
    """`GET /api/course-numbers`: one row per printed figure."""
    exact = _exact()
    return {"rows": [_row(figure, exact[figure.id]) for figure in textbook.figures()]}


def _row(figure: Figure, exact: ExactValue) -> CourseNumber:
    verdict = VERDICTS[figure.id]
    name = figure.printed.partition("(")[2].rstrip(")")
    whose = model(name).name if figure.id.startswith("adapter-") and name else ""
    rounded = None if figure.value is None else textbook.round_half_up(figure.value, figure.decimals)
    return {
        "id": figure.id,
        "what": TEXTS(f"course.name.{figure.id}"),
        "printed": figure.printed,
        "printed_value": figure.printed_value,
        "rule": figure.rule,
        "formula": figure.formula,
        "substituted": figure.substituted,
        "formula_text": _both(figure.formula),
        "substituted_text": _both(figure.substituted),
        "reproduced": rounded,
        "reproduced_unrounded": figure.value,
        "unit": figure.unit,
        "is_reproduced": figure.reproduced,
        "exact": {
            "value": exact.value,
            "unit": exact.unit,
            "text": exact.text,
            "regime": exact.regime,
            "regime_text": _both(exact.regime),
            "basis": exact.basis,
        },
        "verdict": verdict.kind,
        "verdict_text": TEXTS(f"course.kind.{verdict.kind}"),
        "text": _remark(figure.id, TEXTS(f"course.remark.{verdict.remark}", exact=exact.text, name=whose)),
    }


def _remark(figure: str, text: Both) -> Both:
    if figure not in GIB_AS_GB:
        return text
    unit = TEXTS("course.gib_as_gb")
    return {"zh": unit["zh"] + text["zh"], "en": f"{unit['en']} {text['en']}"}


def _both(text: str) -> Both:
    return {"zh": in_chinese(text), "en": text}


def _same(value: float, unit: str, text: str, regime: str) -> ExactValue:
    """A value that reads alike in both languages."""
    return ExactValue(value, unit, {"zh": text, "en": text}, regime)


def _size(size: int, regime: str) -> ExactValue:
    return _same(size, "bytes", _both_units(size), regime)


def _both_units(size: int) -> str:
    """The course prints GB for either, so both stand beside what it prints."""
    return f"{size / GIB:.2f} GiB = {size / 10**9:.2f} GB"


def _exact() -> dict[str, ExactValue]:
    return {**_memory(), **_counts(), **_storage(), **_mechanism(), **_measured(), **_training()}


def _memory() -> dict[str, ExactValue]:
    full, lora = estimate("7B", method="full", **KEPT), estimate("7B", method="lora", **KEPT)
    checkpointed = estimate("7B", method="lora", gradient_checkpointing=True)
    wide = estimate("7B", method="full", **FLOAT32)
    alone = _q_only("7B")
    own = alone.trainable_parameters * 16  # adapter weight 4, gradient 4, two moments of 4
    usual, floats = f"{REGIME}, {full.plan.regime}", f"{REGIME}, {wide.plan.regime}"
    ratio = full.allocated_bytes / lora.allocated_bytes
    saved = 100 * (1 - lora.allocated_bytes / full.allocated_bytes)
    peak, again = _both_units(lora.allocated_bytes), _both_units(checkpointed.allocated_bytes)
    both = TEXTS("course.exact.checkpointed", peak=peak, checkpointed=again)
    compared = f"{REGIME}: {full.plan.regime} against {lora.plan.regime}"
    return {
        "full-98": _size(full.allocated_bytes, usual),
        "full-weights-26": _size(wide.total_parameters * 4, floats),
        "full-optimizer-52": _size(wide.breakdown["optimizer_state_bytes"], floats),
        "full-gradients-26": _size(wide.trainable_parameters * 4, floats),
        "full-activations-13": _activations(usual),
        "full-total-117": _size(wide.allocated_bytes, floats),
        "lora-weights-13": _size(lora.breakdown["weights_bytes"], f"{REGIME}, {lora.plan.regime}"),
        "lora-own-0.04": _same(own, "bytes", f"{own / GIB:.5f} GiB = {own:,} B", "q_proj alone, rank 8, fp32 adapter"),
        "lora-26": ExactValue(lora.allocated_bytes, "bytes", both, f"{REGIME}, {lora.plan.regime}"),
        "memory-3.8x": _same(ratio, "x", f"{ratio:.2f}×", compared),
        "saved-73.5": _same(saved, "%", f"{saved:.1f}%", compared),
    }


def _activations(regime: str) -> ExactValue:
    """The most that autograd holds at any moment, for two batch sizes: it moves with the tokens alone."""
    one, four = (_most_activations(estimate("7B", method="full", micro_batch_size=batch, **KEPT)) for batch in (1, 4))
    return ExactValue(
        one, "bytes", TEXTS("course.exact.activations", one=_both_units(one), four=_both_units(four)), regime
    )


def _most_activations(found: Estimate) -> int:
    column = CATEGORIES.index("activations")
    return max(moment.by_category()[column].at(*found.point) for moment in found.plan.moments)


def _counts() -> dict[str, ExactValue]:
    found: dict[str, ExactValue] = {}
    for size in ("7B", "13B", "70B"):
        alone = _q_only(size)
        base = alone.total_parameters - alone.trainable_parameters
        ratio = base / alone.trainable_parameters
        regime = f"{alone.model.name}, rank 8, q_proj alone"
        found[f"adapter-{size.lower()}"] = _same(
            alone.trainable_parameters, "parameters", f"{alone.trainable_parameters:,}", regime
        )
        found[f"fewer-{size.lower()}"] = _same(ratio, "x", f"{ratio:,.0f}×", regime)
    alone = _q_only("7B")
    share = 100 * alone.trainable_parameters / alone.total_parameters
    found["share-0.03"] = _same(share, "%", f"{share:.4f}%", f"{alone.model.name}, rank 8, q_proj alone")
    return found


def _storage() -> dict[str, ExactValue]:
    alone = _q_only("7B")
    base, file = alone.checkpoint_bytes, alone.adapter_file_bytes or 0
    regime = f"{alone.model.name} in bfloat16 on disk; adapter of rank 8 on q_proj in float32"
    found = {
        "adapter-file-4": _same(file, "bytes", f"{file / 2**20:.0f} MiB ({file:,} B)", regime),
        "storage-3250x": _same(base / file, "x", f"{base / file:,.0f}×", regime),
    }
    for tasks in (10, 6):
        full, lora = tasks * base, base + tasks * file
        share = 100 * (1 - lora / full)
        found |= {
            f"storage-{tasks}-full": _size(full, regime),
            f"storage-{tasks}-lora": _size(lora, regime),
            f"storage-{tasks}-saved": _same(share, "%", f"{share:.2f}%", regime),
            f"storage-{tasks}-saved-gb": _size(full - lora, regime),
        }
    return found


def _mechanism() -> dict[str, ExactValue]:
    square = 2 * 1024 * 8
    regime = "one 1024 × 1024 matrix, rank 8"
    return {
        "square-16384": _same(square, "parameters", f"{square:,}", regime),
        "square-1.5625": _same(100 * square / 1024**2, "%", f"{100 * square / 1024**2:.4f}%", regime),
    }


def _measured() -> dict[str, ExactValue]:
    """What no formula gives: this ledger says so, and the lessons measure it."""
    missing = ExactValue(None, "", TEXTS("course.exact.not measured"), "measured on your machine", "not measured")
    return {"faster-100x": missing, "knowledge-47.5": missing}


def _training() -> dict[str, ExactValue]:
    """The last example from its number of operations: six per parameter and token, attention left out."""
    device = gpu(EXAMPLE_GPU)
    work = training_work(Network(EXAMPLE_PARAMETERS, EXAMPLE_PARAMETERS, 0, EXAMPLE_PARAMETERS, 0, 0.0))
    hours = gpu_hours(device, "bfloat16", work.total * EXAMPLE_TOKENS, EXAMPLE_UTILIZATION)
    price = device.prices_of(ON_DEMAND)[0]
    if hours is None:
        raise LookupError(f"{EXAMPLE_GPU} has no bfloat16 rate")
    dollars = hours * price.usd_per_gpu_hour
    source = f"{price.usd_per_gpu_hour} USD per GPU hour: {price.provider}, {price.source}"
    return {
        "hours-17500": ExactValue(hours, "GPU hours", TEXTS("course.exact.hours", hours=hours), EXAMPLE, ASSUMED),
        "dollars-1.75m": ExactValue(
            dollars, "US dollars", TEXTS("course.exact.dollars", dollars=dollars), f"{EXAMPLE}; {source}", ASSUMED
        ),
    }


def _q_only(name: str) -> Estimate:
    return estimate(name, method="lora", rank=8, target_modules=["q_proj"])

"""The planner's answers, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from loralens.core.answer.pace_shapes import IterationPace, StepSeconds, TokensPerSecond
from loralens.core.answer.shapes import IdleWords, Peak
from loralens.core.question.shapes import ModelSummary, Pair, RecipeWords
from loralens.core.texts import Both


class Said(TypedDict):
    """A sentence in English, and its name, by which a page has it in its reader's language."""

    key: str
    en: str


class FitGpu(TypedDict):
    """The GPU in question."""

    id: str
    name: str
    memory_bytes: int
    memory_basis: Annotated[str, "driver, or the assumption behind `memory_bytes`."]


class Largest(TypedDict):
    """The largest value of one variable with which the step fits, all else as asked."""

    value: Annotated[int | None, "null: not even the smallest fits, which is 1, or the length of a sample's pictures."]
    asked: int
    bounded_by: Annotated[str, "memory, or the range of the question."]
    peak_allocated_bytes: NotRequired[int]
    needed_bytes: NotRequired[int]
    model_context: NotRequired[Annotated[int, "`max_position_embeddings` of the model, for a length."]]


_From = TypedDict("_From", {"from": Any})


class AdvisedChange(_From):
    """One field to change, from what to what, and why."""

    field: str
    to: Any
    cost: Annotated[str, "What it costs otherwise: none, time, quality, or another method."]
    why: Said
    saves_bytes: Annotated[
        int, "Of the allocated peak; predicted for this very question. Negative: so much more is allocated."
    ]
    peak_allocated_bytes: int
    needed_bytes: int
    fits: NotRequired[Annotated[bool, "Whether this change is enough by itself."]]
    time_ratio: NotRequired[Annotated[float | None, "Time a token with the change, over without; null: not known."]]


class QuickerChange(_From):
    """One field to change so that a step takes less time and still fits."""

    field: str
    to: Any
    why: Said
    time_ratio: Annotated[float, "Time a token with the change, over without."]
    saves_seconds: Annotated[float, "Of one step."]
    saves_bytes: Annotated[int, "Of the allocated peak; negative: so much more is allocated."]
    needed_bytes: int


class SmallestGpu(TypedDict):
    """A GPU that fits without any change."""

    id: str
    name: str
    memory_bytes: int


class SeveralGpus(TypedDict):
    """How many of the GPU do, with everything sharded."""

    gpus: int
    strategy: str
    needed_bytes: int


class Advice(TypedDict):
    """What to change so that it fits."""

    changes: list[AdvisedChange]
    path: Annotated[list[AdvisedChange] | None, "Changes to make together; null: no path is known."]
    smallest_gpu: SmallestGpu | None
    several_gpus: SeveralGpus | None


class PlanRow(TypedDict):
    """One way to share a step out."""

    level: Annotated[int, "1: copies only; 8: stages. Each level waits for one more kind of transfer."]
    mesh: dict[str, int]
    words: Annotated[dict[str, object], "Recipe words that make the question this plan, by flat name."]
    micro_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    tokens_per_step: Annotated[int, "Of all GPUs together."]
    allocated_bytes: int
    needed_bytes: int
    fits: bool
    verdict: Annotated[str, "fits, tight or does_not_fit, as in /api/memory."]
    decided_by: Annotated[str, "What the verdict is about, as in /api/memory."]
    host_needed_bytes: Annotated[Pair, "What a machine needs of host memory, at least and to be safe."]
    seconds_per_step: Annotated[float | None, "Expected; null: a rate is not known, or an engine cannot start."]
    step_seconds: Annotated[StepSeconds | None, "The same with its band and where the seconds go."]
    tokens_per_second_per_gpu: float | None
    recipe: RecipeWords
    configs: Annotated[dict[str, str], "Texts to paste, by program."]


class PlansAnswer(TypedDict):
    """`POST /api/plans`."""

    model: ModelSummary
    method: str
    gpu: dict[str, object]
    gpus: int
    nodes: int
    tried: int
    plans: list[PlanRow]
    nearest: Annotated[
        PlanRow | None, "Where none fits: of the plans whose GPUs hold it, else of all, the one that needs least."
    ]
    configs_left_out: Annotated[list[Said], "Which programs have no text to paste for plans such as these, and why."]
    without_effect: Annotated[
        list[IdleWords], "Of the words that were asked for: those that change nothing in any of the plans."
    ]
    remarks: Annotated[list[str], "What /api/memory says of each of the plans alike, as in /api/fit."]
    assumptions: list[str]


class GpuHours(TypedDict):
    """GPU hours; null: not known."""

    least: float | None
    expected: float | None
    low: float | None
    high: float | None


class AlikeTime(GpuHours):
    """GPU hours on a card with as much memory as the one in question, whose rate is not known."""

    gpu: str
    name: str
    expected_usd: Annotated[float | None, "At the cheapest price that is known of the asked market."]


class TrainingCost(TypedDict):
    """What the hours cost at one published price; null: not known."""

    usd_per_gpu_hour: float
    market: Annotated[str, "on-demand, spot (interruptible) or reserved."]
    provider: str
    source: str
    date: str
    least_usd: float | None
    expected_usd: float | None
    low_usd: float | None
    high_usd: float | None


class Rate(TypedDict):
    """Operations a second of one card, in the dtype that computes; null: not known."""

    dtype: str
    dense_flops_per_second: int | None
    achievable_flops_per_second: int | None
    achievable_source: str | None
    utilization: Annotated[float | None, "Share of the dense peak."]
    utilization_basis: Annotated[str, "given, or computed from the step's time."]
    least_flops_per_second: int | None
    expected_flops_per_second: float | None


class NamedGpu(TypedDict):
    """Which card."""

    id: str
    name: str


class TrainingRun(TypedDict):
    """How often what repeats, for the whole training."""

    samples: Annotated[int, "Completions, pairs or rows, as the trainer counts them."]
    steps: int
    iterations: Annotated[
        int | None, "With a rollout: generations; else as many as steps. null: its time is not known."
    ]


class TrainingTime(TypedDict):
    """Operations, seconds, GPU hours and cost on one card; null stands for: not known."""

    tokens: int
    flops_per_token: dict[str, float]
    flops: float
    reasons: Both
    gpu: NamedGpu
    rate: Rate
    step_seconds: StepSeconds | None
    tokens_per_second: Annotated[TokensPerSecond | None, "Of all cards together."]
    iteration: Annotated[IterationPace | None, "What repeats, phase by phase."]
    run: TrainingRun
    withheld: Annotated[
        Said | None,
        "Why a run has no time and no cost: its engine cannot start, its pictures have no room, or it waits for a drive of unknown speed.",
    ]
    gpu_hours: GpuHours
    cost: Annotated[list[TrainingCost], "At prices of the asked market, the cheapest first."]
    cost_elsewhere: Annotated[list[TrainingCost], "At prices of the other markets."]
    assumptions: list[str]


class Time(TrainingTime):
    """Operations, seconds, GPU hours and cost; null stands for: not known."""

    alike: Annotated[
        list[AlikeTime], "Where the card's rate is not known: known cards with as much memory, the slowest first."
    ]


class FitAnswer(TypedDict):
    """`POST /api/fit`."""

    model: ModelSummary
    method: str
    regime: str
    recipe: RecipeWords
    gpu: FitGpu
    verdict: Annotated[str, "fits, tight or does_not_fit."]
    decided_by: Annotated[str, "What the verdict is about, as in /api/memory."]
    peak: Peak
    needed_bytes: Annotated[int, "What a card must have: peak, fragmentation and context."]
    headroom_bytes: Annotated[int, "Memory above `needed_bytes`; negative: so much is missing."]
    largest: dict[str, Largest]
    quicker: Annotated[
        list[QuickerChange], "What makes a step quicker; empty where nothing does or its time is not known."
    ]
    advice: Annotated[Advice | None, "null where nothing has to change."]
    without_effect: list[IdleWords]
    remarks: Annotated[
        list[str],
        "What /api/memory says of this recipe and card in `assumptions`, without `without_effect`, `model.read_as` and what stands there always.",
    ]
    time: Time | None


class SweepVariable(TypedDict):
    """One axis of the grid."""

    name: str
    values: list[int]


class Sweep(TypedDict):
    """One method over the whole grid; arrays in C order."""

    method: str
    peak_allocated_bytes: list[int]
    needed_bytes: list[int]
    phases: Annotated[list[int], "Indices into `phase_names`."]
    verdicts: NotRequired[Annotated[list[str] | None, "With a GPU: fits, tight or does_not_fit."]]
    fits: NotRequired[Annotated[list[bool] | None, "With a GPU: whether the verdict is `fits`."]]


class SweepAnswer(TypedDict):
    """`POST /api/sweep`."""

    model: ModelSummary
    recipe: RecipeWords
    gpu: SmallestGpu | None
    variables: list[SweepVariable]
    shape: list[int]
    phase_names: list[str]
    sweeps: list[Sweep]

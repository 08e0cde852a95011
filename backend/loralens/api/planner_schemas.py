"""The shapes of the planner's answers as the OpenAPI schema tells them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from loralens.api.schemas import ModelSummary, Peak
from loralens.api.shape import Recipe, Shape


class Both(Shape):
    """One text in both languages."""

    zh: str
    en: str


class Said(Shape):
    """A sentence in English, and its name, by which a page has it in its reader's language."""

    key: str
    en: str


class FitGpu(Shape):
    """The GPU in question."""

    id: str
    name: str
    memory_bytes: int
    memory_basis: str = Field(description="driver, or the assumption behind `memory_bytes`.")


class Largest(Shape):
    """The largest value of one variable with which the step fits, all else as asked."""

    value: int | None = Field(description="null: not even 1 fits.")
    asked: int
    bounded_by: str = Field(description="memory, or the range of the question.")
    peak_allocated_bytes: int | None = None
    needed_bytes: int | None = None
    model_context: int | None = Field(None, description="`max_position_embeddings` of the model, for a length.")


class AdvisedChange(Shape):
    """One field to change."""

    field: str
    before: Any = Field(alias="from")
    to: Any
    cost: str = Field(description="What it costs otherwise: none, time, quality, or another method.")
    why: Said
    saves_bytes: int = Field(description="Of the allocated peak; predicted for this very question.")
    peak_allocated_bytes: int
    needed_bytes: int
    fits: bool | None = Field(None, description="Whether this change is enough by itself.")
    time_ratio: float | None = Field(None, description="Time a token with the change, over without; null: not known.")


class SmallestGpu(Shape):
    """A GPU that fits without any change."""

    id: str
    name: str
    memory_bytes: int


class SeveralGpus(Shape):
    """How many of the GPU do, with everything sharded."""

    gpus: int
    strategy: str
    needed_bytes: int


class Advice(Shape):
    """What to change so that it fits."""

    changes: list[AdvisedChange]
    path: list[AdvisedChange] | None = Field(description="Changes to make together; null: no path is known.")
    smallest_gpu: SmallestGpu | None
    several_gpus: SeveralGpus | None


class StepSeconds(Shape):
    """One optimizer step's time on all cards together."""

    expected: float
    low: float = Field(description="Four of five published runs that had no part in fitting lie between low and high.")
    high: float
    parts: dict[str, float] = Field(description="Where the seconds go; they add up to `expected`.")
    basis: str = Field(
        description="fitted: on published runs of this card; class: the card's rate is a guess by its class."
    )
    range: bool = Field(description="The processor sets the pace: read low and high, not one number.")


class PlanRow(Shape):
    """One way to share a step out."""

    level: int = Field(description="1: copies only; 7: stages. Each level waits for one more kind of transfer.")
    mesh: dict[str, int]
    words: dict[str, Any] = Field(description="Recipe words that make the question this plan, by flat name.")
    micro_batch_size: int
    gradient_accumulation_steps: int
    gradient_checkpointing: bool
    tokens_per_step: int = Field(description="Of all GPUs together.")
    allocated_bytes: int
    needed_bytes: int
    fits: bool
    seconds_per_step: float | None = Field(description="For comparing plans; null: a rate is not known.")
    tokens_per_second_per_gpu: float | None
    recipe: Recipe
    configs: dict[str, str] = Field(description="Texts to paste, by program.")


class PlansAnswer(Shape):
    """`POST /api/plans`."""

    model: ModelSummary
    method: str
    gpu: dict[str, Any]
    gpus: int
    nodes: int
    tried: int
    plans: list[PlanRow]
    nearest: PlanRow | None = Field(description="The plan that needs least, where none fits.")
    assumptions: list[str]


class AlikeTime(Shape):
    """GPU hours on a card with as much memory as the one in question, whose rate is not known."""

    gpu: str
    name: str
    least: float | None
    expected: float | None
    low: float | None
    high: float | None
    expected_usd: float | None = Field(description="At the cheapest price that is known.")


class Time(Shape):
    """Operations, seconds, GPU hours and cost; null stands for: not known."""

    tokens: int
    flops_per_token: dict[str, float]
    flops: float
    reasons: Both
    gpu: dict[str, str]
    rate: dict[str, Any]
    step_seconds: StepSeconds | None
    tokens_per_second: dict[str, float] | None = Field(description="expected, low and high, of all cards together.")
    gpu_hours: dict[str, float | None] = Field(description="least, expected, low and high.")
    cost: list[dict[str, Any]]
    alike: list[AlikeTime] = Field(
        description="Where the card's rate is not known: known cards with as much memory, the slowest first."
    )
    assumptions: list[str]


class FitAnswer(Shape):
    """`POST /api/fit`."""

    model: ModelSummary
    method: str
    regime: str
    recipe: Recipe
    gpu: FitGpu
    verdict: str = Field(description="fits, tight or does_not_fit.")
    peak: Peak
    needed_bytes: int = Field(description="What a card must have: peak, fragmentation and context.")
    headroom_bytes: int = Field(description="Memory above `needed_bytes`; negative: so much is missing.")
    largest: dict[str, Largest]
    advice: Advice | None = Field(description="null where nothing has to change.")
    time: Time | None


class SweepVariable(Shape):
    """One axis of the grid."""

    name: str
    values: list[int]


class Sweep(Shape):
    """One method over the whole grid; arrays in C order."""

    method: str
    peak_allocated_bytes: list[int]
    needed_bytes: list[int]
    phases: list[int] = Field(description="Indices into `phase_names`.")
    fits: list[bool] | None = None


class SweepAnswer(Shape):
    """`POST /api/sweep`."""

    model: ModelSummary
    recipe: Recipe
    gpu: SmallestGpu | None
    variables: list[SweepVariable]
    shape: list[int]
    phase_names: list[str]
    sweeps: list[Sweep]


class Exact(Shape):
    """What the calculator says in place of a printed figure."""

    value: float | None
    unit: str
    text: Both
    regime: str = Field(description="Which model and set-up the value is for.")
    regime_text: Both
    basis: str = Field(description="computed, or not measured.")


class CourseNumber(Shape):
    """One printed figure of the course."""

    id: str
    what: Both = Field(description="What it is a figure of.")
    printed: str
    printed_value: float | None
    rule: str
    formula: str
    substituted: str
    formula_text: Both
    substituted_text: Both
    reproduced: float | None = Field(description="What the rule gives, rounded as it was printed.")
    reproduced_unrounded: float | None
    unit: str
    is_reproduced: bool
    exact: Exact
    verdict: str
    verdict_text: Both
    text: Both


class CourseAnswer(Shape):
    """`GET /api/course-numbers`."""

    rows: list[CourseNumber]

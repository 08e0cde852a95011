"""What the experiment tells, as JSON: points, spectra, costs and the figures made of them."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Spread(TypedDict):
    """Mean over seeds, its 95% interval (null for one value), the seeds' values, and whether they agree in sign."""

    mean: float
    low: float | None
    high: float | None
    values: list[float]
    same_sign: bool


class Score(TypedDict):
    """On held-out text: nats per token, and the share of next tokens that were guessed (0..1)."""

    loss: float
    accuracy: float


class Scores(TypedDict):
    """On the old text and on the new one."""

    old: Score
    new: Score


class MeasuredPoint(Scores):
    """One evaluation of a run; that of the base stands at step 0 and has no rate, seed or training loss."""

    type: Literal["point"]
    phase: str
    arm: str
    step: int
    learning_rate: NotRequired[float]
    seed: NotRequired[int]
    train_loss: NotRequired[float | None]


class ArmFigures(TypedDict):
    """One arm at the last step, over its seeds; `forgetting` and `learned` against the base."""

    arm: str
    method: str
    rank: int | None
    targets: list[str] | None
    train_rest: bool
    mix: float
    learning_rate: float
    old_loss: Spread
    old_accuracy: Spread
    new_loss: Spread
    new_accuracy: Spread
    forgetting_nats: Spread
    forgetting_points: Spread
    learned_nats: Spread
    learned_points: Spread


class EqualLearning(TypedDict):
    """Where both had the same new-text loss; null where no seed got there."""

    forgetting_nats: Spread | None
    seeds_reached: int


class AgainstFull(TypedDict):
    """Arm minus full fine-tuning, seed by seed."""

    arm: str
    forgetting_nats: Spread
    new_loss: Spread
    at_equal_learning: EqualLearning


class BestOfFamily(TypedDict):
    """The least forgetting of a family over its rates."""

    forgetting_nats: float
    learning_rate: float


class SweepAtEqualLearning(TypedDict):
    """Families at one and the same new-text loss."""

    new_loss: float
    families: dict[str, BestOfFamily]


class Summary(TypedDict):
    """The whole experiment in figures."""

    step: int
    seeds: list[int]
    base: Scores
    arms: list[ArmFigures]
    comparisons: list[AgainstFull]
    sweep_at_equal_learning: SweepAtEqualLearning | None


class RankPoint(TypedDict):
    """LoRA of one rank beside the update cut to that rank; null where there is none."""

    rank: int | None
    arm: str
    new_loss: Spread
    gap_to_truncation: Spread | None


class ModuleSpectrum(TypedDict):
    """Singular values of one layer's update, the largest first, four digits."""

    module: str
    shape: list[int]
    norm: float
    relative_norm: float
    singular_values: list[float]
    effective_rank: float
    rank_90: int
    rank_99: int


class RunEnergy(TypedDict):
    """Share of the energy within a rank, of one run."""

    rank: int
    share: float
    random_share: float


class RunSpectrum(TypedDict):
    """One run's layers, and the energy of all together."""

    modules: list[ModuleSpectrum]
    energy: list[RunEnergy]


class Energy(TypedDict):
    """Share of the energy within a rank, over seeds."""

    rank: int
    share: Spread
    random_share: float


class RunTruncated(Scores):
    """Scores of one run's update cut to a rank."""

    rank: int


class Truncated(TypedDict):
    """Losses of the update cut to a rank, over seeds."""

    rank: int
    old_loss: Spread
    new_loss: Spread


class ArmSpectrum(TypedDict):
    """The first seed's layers in detail; energy and losses over all seeds."""

    modules: list[ModuleSpectrum]
    energy: list[Energy]
    truncated: list[Truncated]


class TimedSteps(TypedDict):
    """Seconds of some steps."""

    median: float
    low: float
    high: float
    samples: int


class MeasuredCost(TypedDict):
    """Of one step."""

    weights_bytes: int
    adapter_bytes: int
    gradients_bytes: int
    optimizer_state_bytes: int
    peak_bytes: int
    step_seconds: TimedSteps
    step_processor_seconds: TimedSteps | None


class PredictedCost(TypedDict):
    """The calculator's figures for the same step."""

    trainable_parameters: int
    optimizer_state_bytes: int | None
    peak_bytes: int
    basis: str


class NoPrediction(TypedDict):
    """Why the calculator has none."""

    error: str


class ArmCost(TypedDict):
    """Measured and predicted; null where only some of the base's own weights train."""

    arm: str
    trainable_parameters: int
    total_parameters: int
    measured: MeasuredCost
    predicted: PredictedCost | NoPrediction | None

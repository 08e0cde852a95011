"""What a published comparison says of a rank, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, TypedDict

from loralens.core.texts import Both


class RankRun(TypedDict):
    """One run of the comparison."""

    name: Annotated[str, "PEFT's own name of the run."]
    title: Annotated[Both, "In words, from its recipe; of other methods than LoRA the same as name."]
    peft_type: Annotated[str | None, "null: full fine-tuning."]
    rank: int | None
    alpha: int | None
    target_modules: list[str]
    variant: Annotated[list[str], "What else differs from plain LoRA: rslora, dora, an initialisation, an optimizer."]
    learning_rate: float
    right_answers: int
    accuracy: float
    standard_error: Annotated[float, "Of the accuracy, from the number of questions alone."]
    trainable_parameters: int
    reserved_bytes: Annotated[int, "The most that the allocator reserved, evaluation included."]
    train_seconds: float
    file_bytes: int


class RankSetting(TypedDict):
    """What all runs have in common."""

    model: str
    model_name: str
    gpu: str
    train_data: str
    test_data: str
    test_questions: int
    steps: int
    micro_batch_size: int
    sequence_length: int
    weights_dtype: str
    gradient_checkpointing: bool
    seeds: int
    versions: dict[str, str]
    runs_from: str
    runs_to: str


class RankAnswer(TypedDict):
    """What is known of the quality of a rank, and what is not."""

    model: str
    method: str
    rank: int | None
    target_modules: list[str]
    known: Annotated[bool, "Whether this very setting was measured."]
    verdict: Annotated[list[Both], "What the measurements say of it; where they say nothing, that it is unknown."]
    limits: list[Both]
    measured: Annotated[RankRun | None, "The run with this model, method, rank and these layers."]
    rows: Annotated[list[RankRun], "All runs, the most right answers first."]
    setting: RankSetting
    source: str

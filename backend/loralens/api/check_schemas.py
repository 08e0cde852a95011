"""The shapes of `/api/check` as the OpenAPI schema tells them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from loralens.api.planner_schemas import AdvisedChange
from loralens.api.schemas import MemoryEstimate, ModelSummary, Peak
from loralens.api.shape import Recipe, Shape


class CheckedTrainer(Shape):
    """Whose file it is."""

    name: str
    title: str
    version: str
    file: str
    kind: str = Field(description="yaml, json, shell, python or notebook.")
    source: str = Field(description="Where the meaning of its keys was read.")


class CheckedGpu(Shape):
    """The GPU in question."""

    id: str
    name: str
    memory_bytes: int


class FileKey(Shape):
    """A key of the file with its value; `line` 0: it stands nowhere."""

    key: str
    value: Any
    file: str
    line: int


class SaidKey(FileKey):
    """What is said of a key."""

    says: str


class UnknownKey(FileKey):
    """A key that nobody knows."""

    did_you_mean: str | None


class ReadWord(Shape):
    """A recipe word, and the keys from which it follows."""

    word: str
    value: Any
    keys: list[FileKey] = Field(alias="from")


class MatteringLine(Shape):
    """What one change saves, by the line that it would change."""

    word: str
    value: Any
    to: Any
    saves_bytes: int
    cost: str
    keys: list[FileKey] = Field(alias="from")
    by_default: bool = Field(description="No line says it: it is the trainer's default.")


class FileChange(Shape):
    """One key to change."""

    word: str
    key: str
    before: Any = Field(alias="from")
    to: Any
    cost: str


class CheckedChange(Shape):
    """The smallest change that makes it fit, in the file's own words."""

    changes: list[FileChange]
    diff: str | None = Field(description="A unified diff; null where the file cannot be changed as text.")
    text: str | None = Field(description="The whole file, changed.")
    problem: str | None


class CheckAnswer(Shape):
    """Answer of /api/check."""

    trainer: CheckedTrainer
    model: ModelSummary | None
    method: str
    recipe: Recipe | None
    gpu: CheckedGpu | None
    verdict: str | None = Field(description="fits, tight or does_not_fit; null where no figure or no GPU is given.")
    peak: Peak | None
    estimate: MemoryEstimate | None
    lines: list[MatteringLine]
    change: CheckedChange | None
    words: list[ReadWord]
    blockers: list[SaidKey] = Field(description="Why no figure is given.")
    approximate: list[SaidKey] = Field(description="Keys that matter and are not counted.")
    unknown: list[UnknownKey] = Field(description="Keys that were not understood.")
    questions: list[str] = Field(description="What the file cannot say.")
    notes: list[str]
    without_memory: int = Field(description="Keys that have nothing to do with memory.")


class ExportTrainer(Shape):
    """Whose config it is."""

    name: str
    title: str
    version: str


class ServeLine(Shape):
    """vLLM's command for the adapter."""

    command: str | None = Field(description="Null for full fine-tuning, and where vLLM does not load such an adapter.")
    says: str | None = Field(description="Why vLLM does not load it.")


class ExportAnswer(Shape):
    """Answer of /api/export."""

    trainer: ExportTrainer
    file: str = Field(description="A name for the file.")
    text: str
    command: str = Field(description="What runs it.")
    serve: ServeLine
    recipe: Recipe


class OutOfMemoryFigures(Shape):
    """What the message says; null for what it does not."""

    tried_bytes: int
    capacity_bytes: int | None
    free_bytes: int | None
    allocated_bytes: int | None
    cached_bytes: int | None = Field(description="Reserved by PyTorch and not allocated.")


class ExplainedTensor(Shape):
    """A tensor of the set-up whose request prints as the message has it."""

    name: str
    category: str
    phase: str
    bytes: int
    formula: str
    count: int = Field(description="How often a step asks for it.")
    alive_bytes: int = Field(description="What is allocated before it, of the times it is asked for the closest one.")


class ExplainAnswer(Shape):
    """Answer of /api/explain."""

    message: OutOfMemoryFigures
    reason: str = Field(description="need, fragmentation, or others: another process holds the card.")
    model: ModelSummary | None
    method: str | None
    recipe: Recipe | None
    tensors: list[ExplainedTensor] = Field(description="The likeliest first.")
    peak_allocated_bytes: int | None
    changes: list[AdvisedChange]
    notes: list[str]

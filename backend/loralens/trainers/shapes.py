"""The answers about config files and messages, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from loralens.core.answer.shapes import MemoryEstimate, Peak
from loralens.core.question.shapes import ModelSummary, RecipeWords
from loralens.planner.shapes import AdvisedChange


class CheckedTrainer(TypedDict):
    """Whose file it is."""

    name: str
    title: str
    version: str
    file: str
    kind: Annotated[str, "yaml, json, shell, python or notebook."]
    source: Annotated[str, "Where the meaning of its keys was read."]


class CheckedGpu(TypedDict):
    """The GPU in question."""

    id: str
    name: str
    memory_bytes: int


class FileKey(TypedDict):
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


_FromKeys = TypedDict("_FromKeys", {"from": list[FileKey]})


class ReadWord(_FromKeys):
    """A recipe word, and the keys from which it follows."""

    word: str
    value: Any


class MatteringLine(_FromKeys):
    """What one change saves, by the line that it would change."""

    word: str
    value: Any
    to: Any
    saves_bytes: int
    cost: str
    by_default: Annotated[bool, "No line says it: it is the trainer's default."]


_From = TypedDict("_From", {"from": Any})


class FileChange(_From):
    """One key to change."""

    word: str
    key: str
    to: Any
    cost: str


class CheckedChange(TypedDict):
    """The smallest change that makes it fit, in the file's own words."""

    changes: list[FileChange]
    diff: Annotated[str | None, "A unified diff; null where the file cannot be changed as text."]
    text: Annotated[str | None, "The whole file, changed."]
    problem: str | None


class CheckAnswer(TypedDict):
    """Answer of /api/check."""

    trainer: CheckedTrainer
    model: ModelSummary | None
    method: str
    recipe: RecipeWords | None
    gpu: CheckedGpu | None
    verdict: Annotated[str | None, "fits, tight or does_not_fit; null where no figure or no GPU is given."]
    peak: Peak | None
    estimate: MemoryEstimate | None
    lines: list[MatteringLine]
    change: CheckedChange | None
    words: list[ReadWord]
    blockers: Annotated[list[SaidKey], "Why no figure is given."]
    approximate: Annotated[list[SaidKey], "Keys that matter and are not counted."]
    unknown: Annotated[list[UnknownKey], "Keys that were not understood."]
    questions: Annotated[list[str], "What the file cannot say."]
    notes: list[str]
    without_memory: Annotated[int, "Keys that have nothing to do with memory."]


class ExplainedChange(CheckedChange):
    """That change, where a message was explained with a trainer's file."""

    file: str


class ExportTrainer(TypedDict):
    """Whose config it is."""

    name: str
    title: str
    version: str


class ServeLine(TypedDict):
    """vLLM's command for the adapter."""

    command: Annotated[str | None, "Null for full fine-tuning, and where vLLM does not load such an adapter."]
    says: Annotated[str | None, "Why vLLM does not load it."]


class ExportAnswer(TypedDict):
    """Answer of /api/export."""

    trainer: ExportTrainer
    file: Annotated[str, "A name for the file."]
    text: str
    command: Annotated[str, "What runs it."]
    serve: ServeLine
    recipe: RecipeWords


class OutOfMemoryFigures(TypedDict):
    """What the message says; null for what it does not."""

    tried_bytes: int
    capacity_bytes: int | None
    free_bytes: int | None
    allocated_bytes: int | None
    cached_bytes: Annotated[int | None, "Reserved by PyTorch and not allocated."]


class ExplainedTensor(TypedDict):
    """A tensor of the set-up whose request prints as the message has it."""

    name: str
    category: str
    phase: str
    bytes: int
    formula: str
    count: Annotated[int, "How often a step asks for it."]
    alive_bytes: Annotated[int, "What is allocated before it, of the times it is asked for the closest one."]


class GuessedSetUp(TypedDict):
    """A set-up in which a tensor has the size."""

    model: str
    method: str
    micro_batch_size: int
    sequence_length: int
    rank: Annotated[int | None, "Of the adapter; null for full fine-tuning."]
    optimizer: str
    gradient_checkpointing: bool
    attention: str
    alive_bytes: Annotated[int, "What is allocated before it there, nearest to what the message says."]


class GuessedTensor(TypedDict):
    """A tensor that it may have been, where no set-up is given."""

    name: str
    category: str
    phase: str
    bytes: int
    formula: str
    share: Annotated[
        float, "How likely it is among all that were looked at, from 0 to 1; usual set-ups count more (assumption)."
    ]
    set_ups: Annotated[list[GuessedSetUp], "The likeliest first."]


class SnapshotTerm(TypedDict):
    """Live blocks of a memory snapshot that are one term of the step. `by`: size, or size and stack."""

    name: str
    category: str
    by: str
    bytes: int
    count: int


class UnexplainedBlocks(TypedDict):
    """Live blocks that no term has. `category`: what their stack speaks for."""

    bytes: int
    each_bytes: int
    count: int
    category: str | None
    stack: list[str]


class SnapshotAnswer(TypedDict):
    """What is alive in a memory snapshot."""

    reserved_bytes: int
    allocated_bytes: int
    requested_bytes: int
    blocks: int
    terms: list[SnapshotTerm]
    unexplained_bytes: int
    unexplained: list[UnexplainedBlocks]
    notes: list[str]


class ExplainAnswer(TypedDict):
    """Answer of /api/explain."""

    message: OutOfMemoryFigures
    reason: Annotated[
        str,
        "need; fragmentation; others: another process holds the card. By the set-up: other_run: no request of it has that size; "
        "nearly: it needs nearly all that the card has; beside: it fits.",
    ]
    model: ModelSummary | None
    method: str | None
    recipe: RecipeWords | None
    tensors: Annotated[list[ExplainedTensor], "The likeliest first."]
    guesses: Annotated[list[GuessedTensor], "Without a set-up: the likeliest first, among the models of the catalogue."]
    peak_allocated_bytes: int | None
    changes: Annotated[list[AdvisedChange], "What would make it fit the card of the message."]
    change: Annotated[
        ExplainedChange | None, "The same in the trainer's file; null where none was given, or nothing has to change."
    ]
    notes: list[str]

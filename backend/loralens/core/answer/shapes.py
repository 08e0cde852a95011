"""The answers about memory and parameters, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from loralens.core.question.shapes import ModelSummary, Pair, RecipeWords

Bytes = int
Allocator = Literal["rule", "simulated", "expandable"]


Part = Literal[
    "weights_bytes",
    "adapter_bytes",
    "gradients_bytes",
    "optimizer_state_bytes",
    "activations_bytes",
    "logits_bytes",
    "temporaries_bytes",
]


class ParameterCounts(TypedDict):
    """Counts, not bytes."""

    total: int
    trainable: int
    trainable_percent: float


class Peak(TypedDict):
    """The fullest moment of one steady-state training step."""

    phase: Annotated[str, "forward, backward or optimizer."]
    at: Annotated[str, "The operation at which the peak is reached."]
    allocated_bytes: Annotated[Bytes, "What torch.cuda.max_memory_allocated reports."]
    reserved_bytes: Annotated[Bytes, "What the caching allocator holds."]
    device_bytes: Annotated[Bytes, "What nvidia-smi shows."]
    reserved_band_bytes: Annotated[Pair, "Between which values `reserved_bytes` may lie."]
    device_band_bytes: Annotated[Pair, "Between which values `device_bytes` may lie."]
    needed_bytes: Annotated[Pair, "What a card must have: at least, and with fragmentation."]
    allocator: Annotated[
        Allocator,
        "What reserved, device and needed stand on: the allocated peak, or PyTorch's allocator simulated.",
    ]
    host_bytes: Annotated[Bytes, "Pinned host memory, where something is offloaded."]
    nvme_bytes: Annotated[Bytes, "On one machine's drive, of all its processes (offload_device=nvme)."]


class Breakdown(TypedDict):
    """What the bytes at the peak are; sums to `allocated_bytes`."""

    weights_bytes: Bytes
    adapter_bytes: Bytes
    gradients_bytes: Bytes
    optimizer_state_bytes: Bytes
    activations_bytes: Bytes
    logits_bytes: Bytes
    temporaries_bytes: Bytes


class Phase(TypedDict):
    """The fullest moment of one phase."""

    phase: str
    peak_bytes: Bytes


class Term(TypedDict):
    """One line of the explanation: every byte of the peak belongs to one."""

    name: str
    category: Annotated[str, "The entry of `breakdown` that it is part of."]
    bytes: Bytes
    formula: str
    substituted: str
    source: str


class StoredBytes(TypedDict):
    """What is written to disk."""

    checkpoint_bytes: Bytes
    adapter_file_bytes: Bytes | None


class Fit(TypedDict):
    """Whether one GPU of the catalogue can hold the step."""

    gpu: str
    name: str
    memory_bytes: Bytes
    verdict: Annotated[str, "fits, tight or does_not_fit."]
    decided_by: Annotated[
        str,
        "What the verdict is about: step, or what else is worse: left_out, length, evaluation, host_memory, host_memory_unsaid, shared_memory, engine.",
    ]
    headroom_bytes: Annotated[int, "Negative: so much is missing."]


class MomentFit(TypedDict):
    """Whether one GPU holds one moment."""

    gpu: str
    verdict: Annotated[str, "fits, tight or does_not_fit."]


class RunMoment(TypedDict):
    """One moment of a run: on the fullest GPU, and on a machine."""

    moment: Annotated[
        str, "loading, step, rollout (where an engine generates on this card, at its least), evaluation or saving."
    ]
    allocated_bytes: Bytes
    needed_bytes: Annotated[Pair, "What a card must have: at least, and to be safe."]
    fits: list[MomentFit]
    host_bytes: Annotated[Pair, "Memory of one machine, all its processes: at least, and to be safe."]
    host_verdict: Annotated[
        str | None, "On the machine's host_memory; where that is not said, null, or tight where much is needed."
    ]


class Collective(TypedDict):
    """What a GPU sends and receives in one optimizer step, of one kind."""

    phase: str
    kind: Annotated[str, "all_gather, reduce_scatter, all_reduce, all_to_all, send or receive."]
    over: Annotated[str, "The dimension of the mesh whose GPUs take part."]
    calls: int
    bytes: Annotated[Bytes, "Of the largest tensor of each call: gathered, or before it is scattered."]


class IdleWords(TypedDict):
    """Recipe words that were set and change nothing, for one reason."""

    words: list[str]
    reason: str


class AttentionKernel(TypedDict):
    """A kernel that PyTorch picks for what runs it."""

    kernel: Annotated[str, "flash, efficient or math."]
    because: Annotated[str, "What keeps faster ones away; empty: nothing."]


class IterationPhase(TypedDict):
    """What the trainer holds at most in a phase, and what the engine does meanwhile."""

    phase: str
    trainer_bytes: Bytes
    engine: Annotated[str, "none, awake (its whole share), weights (no cache), or asleep."]


class IterationEngine(TypedDict):
    """An engine beside the trainer."""

    share_of: Annotated[str, "What its share is of: the whole card (vLLM), or what is free when it starts (SGLang)."]
    weights_bytes: Bytes
    profile_bytes: Bytes
    graphs_band_bytes: Annotated[list[Bytes], "CUDA graphs, low and high (assumption)."]
    asleep_band_bytes: Annotated[list[Bytes], "What it keeps while it sleeps, low and high (assumption)."]
    kv_bytes_per_token: Bytes
    kv_bytes_per_sequence: Bytes


class UtilizationBand(TypedDict):
    """Shares, of what the engine's `share_of` names, with which everything fits."""

    least: float
    most: float


class IterationCard(TypedDict):
    """One card with trainer and engine."""

    gpu: str
    name: str
    memory_bytes: Bytes
    verdict: Annotated[str, "fits, tight or does_not_fit, with the share that was asked."]
    utilization: Annotated[UtilizationBand | None, "null: no share lets both fit."]
    headroom_bytes: Annotated[int, "What the engine could take beyond its share; negative: so much is missing."]
    sequences: Annotated[list[int], "Whole rows whose keys and values the asked share holds, low and high."]


class Iteration(TypedDict):
    """The phases of an iteration with a rollout."""

    phases: list[IterationPhase]
    resident_bytes: Annotated[dict[str, Bytes], "What lives in every phase, by kind."]
    engine: IterationEngine | None
    cards: list[IterationCard]


class BatchOfLengths(TypedDict):
    """A batch that so many percent of all batches are no longer than; 100: the worst of an epoch."""

    percent: float
    sequence_length: int
    allocated_bytes: Bytes
    needed_bytes: Annotated[Pair, "What a card must have: at least, and to be safe."]
    fits: list[MomentFit]


class Epoch(TypedDict):
    """Simulated runs of drawn batches on one card, the longest of an epoch among them."""

    runs: int
    batches: Annotated[int, "Of each run."]
    ended: int
    failing_share: Annotated[float, "Of the runs; about the chance of not getting through an epoch."]


class LengthsAnswer(TypedDict):
    """What batches of samples of the given lengths take."""

    samples: int
    tokens: Annotated[int, "After cutting to sequence_length."]
    mean: float
    longest: int
    cut: Annotated[int, "Samples above sequence_length."]
    batches: list[BatchOfLengths]
    padding: Annotated[float, "Share of padding in padded batches."]
    packed_rows: Annotated[int, "Rows of sequence_length that hold all tokens."]
    packing_gain: Annotated[float, "Tokens of padded batches for each token of packed rows."]
    epoch_batches: Annotated[int, "Micro-batches of one epoch on one GPU."]
    epoch: NotRequired[Annotated[Epoch, "With allocator=simulated and one GPU; else it is left out."]]


class MemoryEstimate(TypedDict):
    """One method's answer."""

    method: str
    regime: Annotated[str, "The precision regime in words."]
    basis: Annotated[str, "computed, traced or measured."]
    recipe: RecipeWords
    parameters: ParameterCounts
    peak: Peak
    breakdown: Breakdown
    communication: list[Collective]
    phases: list[Phase]
    terms: list[Term]
    storage: StoredBytes
    assumptions: list[str]
    attention: Annotated[list[AttentionKernel], "Which of PyTorch's attention kernels run; empty: none of them."]
    without_effect: Annotated[list[IdleWords], "The `assumptions` about words, by word."]
    fits: list[Fit]
    moments: list[RunMoment]
    lengths: NotRequired[Annotated[LengthsAnswer, "Only where `lengths` were given."]]
    iteration: NotRequired[Annotated[Iteration, "Of an objective with a rollout; else it is left out."]]


class Comparison(TypedDict):
    """Full fine-tuning against LoRA, from the exact counts."""

    parameters_ratio: float | None
    memory_ratio: float | None
    storage_ratio: float | None
    switch_ratio: Annotated[float | None, "Measured, or null: not measured yet."]


class TrainerRow(TypedDict):
    """The question with one trainer's defaults in the words that it leaves open."""

    trainer: str
    title: Annotated[str, "The trainer with the version whose defaults these are."]
    method: str
    peak: Peak | None
    recipe: RecipeWords | None
    fits: list[Fit]
    problem: Annotated[str | None, "Why these defaults do not go with the rest; null where they do."]


class MemoryAnswer(TypedDict):
    """Answer of /api/memory."""

    model: ModelSummary
    estimates: list[MemoryEstimate]
    comparison: Annotated[Comparison | None, "Null unless both full and lora were asked for."]
    trainers: NotRequired[Annotated[list[TrainerRow], "Only where `trainers` asked for it."]]


class TensorRow(TypedDict):
    """A parameter tensor and how often it repeats."""

    name: Annotated[str, "With * for the number of a repeated layer."]
    role: Annotated[str, "base, adapter, …"]
    shape: list[int]
    count: int
    parameters: Annotated[int, "Of all repetitions together."]
    dtype: str
    bytes: Bytes
    trainable: bool


class RankRow(TypedDict):
    """What another rank would train."""

    rank: int
    trainable: int
    adapter_file_bytes: Bytes


class ParametersAnswer(TypedDict):
    """Answer of /api/parameters."""

    model: ModelSummary
    method: str
    parameters: ParameterCounts
    tensors: list[TensorRow]
    target_modules_available: list[str]
    by_rank: list[RankRow]
    exact: Annotated[bool, "False: the family is unknown and was counted as if it were Llama."]
    note: Annotated[str, "What is special about this count; empty where nothing is."]

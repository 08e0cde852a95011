"""The shapes of the answers as the OpenAPI schema tells them. The core builds them; the tests hold both together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from loralens.api.shape import Recipe, Shape

Bytes = int


class ModelSummary(Shape):
    """Which model an answer is about."""

    id: str = Field(description="Catalogue id, or `custom` for a config.json of your own.")
    name: str
    family: str = Field(description="`model_type` of the config.")
    parameters: int = Field(description="Exact count; tied weights count once.")
    left_out: list[str] = Field(
        description="What the config has and the count has not (a vision tower), in sentences; empty for a language model."
    )
    read_as: list[str] | None = Field(
        None, description="How a name that the catalogue does not have was understood; absent where it has the name."
    )


class ParameterCounts(Shape):
    """Counts, not bytes."""

    total: int
    trainable: int
    trainable_percent: float


class Peak(Shape):
    """The fullest moment of one steady-state training step."""

    phase: str = Field(description="forward, backward or optimizer.")
    at: str = Field(description="The operation at which the peak is reached.")
    allocated_bytes: Bytes = Field(description="What torch.cuda.max_memory_allocated reports.")
    reserved_bytes: Bytes = Field(description="What the caching allocator holds.")
    device_bytes: Bytes = Field(description="What nvidia-smi shows.")
    reserved_band_bytes: tuple[Bytes, Bytes] = Field(description="Between which values `reserved_bytes` may lie.")
    device_band_bytes: tuple[Bytes, Bytes] = Field(description="Between which values `device_bytes` may lie.")
    needed_bytes: tuple[Bytes, Bytes] = Field(description="What a card must have: at least, and with fragmentation.")
    allocator: Literal["rule", "simulated"] = Field(
        description="What reserved, device and needed stand on: the allocated peak, or PyTorch's allocator simulated."
    )
    host_bytes: Bytes = Field(description="Pinned host memory, where something is offloaded.")


class Breakdown(Shape):
    """What the bytes at the peak are; sums to `allocated_bytes`."""

    weights_bytes: Bytes
    adapter_bytes: Bytes
    gradients_bytes: Bytes
    optimizer_state_bytes: Bytes
    activations_bytes: Bytes
    logits_bytes: Bytes
    temporaries_bytes: Bytes


class Phase(Shape):
    """The fullest moment of one phase."""

    phase: str
    peak_bytes: Bytes


class Term(Shape):
    """One line of the explanation: every byte of the peak belongs to one."""

    name: str
    category: str = Field(description="The entry of `breakdown` that it is part of.")
    bytes: Bytes
    formula: str
    substituted: str
    source: str


class Storage(Shape):
    """What is written to disk."""

    checkpoint_bytes: Bytes
    adapter_file_bytes: Bytes | None


class Fit(Shape):
    """Whether one GPU of the catalogue can hold the step."""

    gpu: str
    name: str
    memory_bytes: Bytes
    verdict: str = Field(description="fits, tight or does_not_fit.")
    headroom_bytes: int = Field(description="Negative: so much is missing.")


class Collective(Shape):
    """What a GPU sends and receives in one optimizer step, of one kind."""

    phase: str
    kind: str = Field(description="all_gather, reduce_scatter, all_reduce, all_to_all, send or receive.")
    over: str = Field(description="The dimension of the mesh whose GPUs take part.")
    calls: int
    bytes: Bytes = Field(description="Of the largest tensor of each call: gathered, or before it is scattered.")


class IdleWords(Shape):
    """Recipe words that were set and change nothing, for one reason."""

    words: list[str]
    reason: str


class AttentionKernel(Shape):
    """A kernel that PyTorch picks for what runs it."""

    kernel: str = Field(description="flash, efficient or math.")
    because: str = Field(description="What keeps faster ones away; empty: nothing.")


class IterationPhase(Shape):
    """What the trainer holds at most in a phase, and what the engine does meanwhile."""

    phase: str
    trainer_bytes: Bytes
    engine: str = Field(description="none, awake (its whole share), weights (no cache), or asleep.")


class IterationEngine(Shape):
    """A vLLM engine beside the trainer."""

    weights_bytes: Bytes
    profile_bytes: Bytes
    graphs_band_bytes: list[Bytes] = Field(description="CUDA graphs, low and high (assumption).")
    asleep_band_bytes: list[Bytes] = Field(description="What it keeps while it sleeps, low and high (assumption).")
    kv_bytes_per_token: Bytes
    kv_bytes_per_sequence: Bytes


class UtilizationBand(Shape):
    """Shares of the whole card with which everything fits."""

    least: float
    most: float


class IterationCard(Shape):
    """One card with trainer and engine."""

    gpu: str
    name: str
    memory_bytes: Bytes
    verdict: str = Field(description="fits, tight or does_not_fit, with the share that was asked.")
    utilization: UtilizationBand | None = Field(description="null: no share lets both fit.")
    headroom_bytes: int = Field(
        description="What the engine could take beyond its share; negative: so much is missing."
    )
    sequences: list[int] = Field(description="Whole rows whose keys and values the asked share holds, low and high.")


class Iteration(Shape):
    """The phases of an iteration with a rollout."""

    phases: list[IterationPhase]
    resident_bytes: dict[str, Bytes] = Field(description="What lives in every phase, by kind.")
    engine: IterationEngine | None
    cards: list[IterationCard]


class MemoryEstimate(Shape):
    """One method's answer."""

    method: str
    regime: str = Field(description="The precision regime in words.")
    basis: str = Field(description="computed, traced or measured.")
    recipe: Recipe
    parameters: ParameterCounts
    peak: Peak
    breakdown: Breakdown
    communication: list[Collective]
    phases: list[Phase]
    terms: list[Term]
    storage: Storage
    assumptions: list[str]
    attention: list[AttentionKernel] = Field(
        description="Which of PyTorch's attention kernels run; empty: none of them."
    )
    without_effect: list[IdleWords] = Field(description="The `assumptions` about words, by word.")
    fits: list[Fit]
    iteration: Iteration | None = Field(
        default=None, description="Of an objective with a rollout; else it is left out."
    )


class Comparison(Shape):
    """Full fine-tuning against LoRA, from the exact counts."""

    parameters_ratio: float | None
    memory_ratio: float | None
    storage_ratio: float | None
    switch_ratio: float | None = Field(description="Measured, or null: not measured yet.")


class TrainerRow(Shape):
    """The question with one trainer's defaults in the words that it leaves open."""

    trainer: str
    title: str = Field(description="The trainer with the version whose defaults these are.")
    method: str
    peak: Peak | None
    recipe: Recipe | None
    fits: list[Fit]
    problem: str | None = Field(description="Why these defaults do not go with the rest; null where they do.")


class MemoryAnswer(Shape):
    """Answer of /api/memory."""

    model: ModelSummary
    estimates: list[MemoryEstimate]
    comparison: Comparison | None = Field(description="Null unless both full and lora were asked for.")
    trainers: list[TrainerRow] | None = Field(None, description="Only where `trainers` asked for it.")


class TensorRow(Shape):
    """A parameter tensor and how often it repeats."""

    name: str = Field(description="With * for the number of a repeated layer.")
    role: str = Field(description="base, adapter, …")
    shape: list[int]
    count: int
    parameters: int = Field(description="Of all repetitions together.")
    dtype: str
    bytes: Bytes
    trainable: bool


class RankRow(Shape):
    """What another rank would train."""

    rank: int
    trainable: int
    adapter_file_bytes: Bytes


class ParametersAnswer(Shape):
    """Answer of /api/parameters."""

    model: ModelSummary
    method: str
    parameters: ParameterCounts
    tensors: list[TensorRow]
    target_modules_available: list[str]
    by_rank: list[RankRow]
    exact: bool = Field(description="False: the family is unknown and was counted as if it were Llama.")
    note: str = Field(description="What is special about this count; empty where nothing is.")


class ModelRow(Shape):
    """One model of the catalogue."""

    id: str
    name: str
    hf_id: str
    publisher: str
    family: str
    aliases: list[str]
    published_parameters: int | None
    published_parameters_source: str | None
    licence: str
    source: str
    provenance: str
    notes: str | None


class ModelDetail(ModelRow):
    """One model of the catalogue with its architecture."""

    config: dict[str, Any] = Field(description="The architecture keys of config.json.")
    read_as: list[str] | None = Field(None, description="How a name that the catalogue does not have was understood.")


class ModelsAnswer(Shape):
    """Answer of /api/models."""

    models: list[ModelRow]


class FamilyRow(Shape):
    """One model type."""

    model_type: str
    memory: bool = Field(description="True: the training step is modelled. False: parameters are counted alone.")


class FamiliesAnswer(Shape):
    """Answer of /api/families."""

    families: list[FamilyRow]


class ResolvedModel(Shape):
    """Answer of /api/models/resolve."""

    source: Literal["catalogue", "folder", "cache", "hub"] = Field(description="Where the model was found.")
    id: str = Field(description="Catalogue id, name of the folder, or owner/name on the Hub.")
    model: ModelSummary
    config: dict[str, Any] = Field(description="Its config.json, under the name by which it was found.")
    fetched_at: str | None = Field(description="When it came from the Hub (ISO 8601); null if it did not.")


class PriceRow(Shape):
    """A list price with its source."""

    usd_per_gpu_hour: float
    source: str
    date: str


class GpuRow(Shape):
    """One GPU; null means: not known."""

    id: str
    name: str
    vendor: str
    architecture: str
    compute_capability: str | None = Field(description="CUDA's, an AMD chip's LLVM name, or mps.")
    aliases: list[str]
    memory_bytes: Bytes = Field(description="What the driver reports.")
    memory_basis: str
    marketing_memory_gb: int | None = Field(description="The size on the box; null for a GPU of your own.")
    memory_bandwidth_bytes_per_second: int | None
    dense_flops_per_second: dict[str, int | None]
    achievable_flops_per_second: dict[str, int]
    achievable_source: str | None
    interconnect: dict[str, Any]
    power_watts: int | None
    launch_year: int | None
    prices: list[PriceRow]
    sources: list[str]
    notes: str | None


class GpusAnswer(Shape):
    """Answer of /api/gpus."""

    gpus: list[GpuRow]


class Device(Shape):
    """Something in this machine that can run jobs."""

    id: str = Field(description="cpu, cuda:0, mps, …")
    kind: Literal["cpu", "cuda", "mps"]
    name: str
    memory_bytes: Bytes | None
    free_bytes: Bytes | None
    driver: str | None


class LabAnswer(Shape):
    """Answer of /api/lab: whether benchmark, experiments and adapters can be used, and how far PyTorch is."""

    status: Literal["ready", "installing", "failed", "off", "missing"]
    phase: Literal["downloading", "unpacking"] | None = Field(description="What is being done; null: nothing.")
    downloaded_bytes: Bytes | None = Field(description="Of all files so far.")
    file: str | None = Field(description="The package on its way.")
    file_bytes: Bytes | None
    file_total_bytes: Bytes | None
    seconds: float | None = Field(description="Since the installation began.")
    failure: Literal["unreachable", "disk_full", "no_build", "stopped", "other"] | None
    reason: str | None = Field(description="Why it failed, in words.")
    hint: str | None = Field(description="The command that installs it.")


class SystemAnswer(Shape):
    """Answer of /api/system."""

    loralens: str
    python: str
    platform: str
    cpu_cores: int
    memory_bytes: Bytes | None
    devices: list[Device]
    packages: dict[str, str | None] = Field(description="Versions of the optional packages; null: not installed.")
    lab: LabAnswer


class HealthAnswer(Shape):
    """Answer of /api/health."""

    status: Literal["ok"]
    version: str

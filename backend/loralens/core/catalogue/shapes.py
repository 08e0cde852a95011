"""What the catalogue tells, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

Bytes = int


class ModelRow(TypedDict):
    """One model of the catalogue."""

    id: str
    name: str
    hf_id: str
    publisher: str
    family: str
    aliases: list[str]
    parameters: Annotated[int, "As counted, tied ones once, towers included: what every answer about it says."]
    published_parameters: int | None
    published_parameters_source: str | None
    licence: str
    source: str
    provenance: str
    notes: str | None


class ModelDetail(ModelRow):
    """One model of the catalogue with its architecture."""

    config: Annotated[dict[str, object], "The architecture keys of config.json."]
    read_as: NotRequired[Annotated[list[str], "How a name that the catalogue does not have was understood."]]


class PriceRow(TypedDict):
    """A list price with its source."""

    usd_per_gpu_hour: float
    market: Annotated[str, "on-demand, spot (interruptible) or reserved."]
    provider: str
    source: str
    date: str


class GpuRow(TypedDict):
    """One GPU; null means: not known."""

    id: str
    name: str
    vendor: str
    architecture: str
    compute_capability: Annotated[str | None, "CUDA's, an AMD chip's LLVM name, or mps."]
    aliases: list[str]
    memory_bytes: Annotated[Bytes, "What the driver reports."]
    memory_basis: str
    marketing_memory_gb: Annotated[int | None, "The size on the box; null for a GPU of your own."]
    memory_bandwidth_bytes_per_second: int | None
    dense_flops_per_second: dict[str, int | None]
    achievable_flops_per_second: dict[str, int]
    achievable_source: str | None
    interconnect: dict[str, object]
    power_watts: int | None
    launch_year: int | None
    prices: list[PriceRow]
    sources: list[str]
    notes: str | None
    unified_memory_bytes: Annotated[Bytes | None, "The pool that it shares with the processor, where it does."]

"""Shapes of `/api/serving`."""

from __future__ import annotations

from loralens.api.shape import Shape


class AdapterGroup(Shape):
    """Adapters of one rank."""

    rank: int
    count: int
    parameters_each: int
    bytes_each: int


class RankCount(Shape):
    """How many adapters of a rank fit beside base and cache."""

    rank: int
    count: int


class ServingGpu(Shape):
    """One GPU's verdict."""

    gpu: str
    name: str
    memory_bytes: int
    fits: bool
    headroom_bytes: int
    adapters_that_fit: list[RankCount]
    full_models_that_fit: int


class ServingTerm(Shape):
    """One line of the explanation."""

    name: str
    bytes: int
    formula: str
    substituted: str
    source: str


class ServingModel(Shape):
    """Which model."""

    id: str
    name: str
    family: str


class ServingAnswer(Shape):
    """Memory of serving one base with many adapters."""

    model: ServingModel
    base_bytes: int
    adapters: list[AdapterGroup]
    adapters_bytes: int
    padded_adapters_bytes: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    logits_bytes: int
    total_bytes: int
    full_models_bytes: int
    memory_ratio: float
    gpus: list[ServingGpu]
    terms: list[ServingTerm]
    assumptions: list[str]

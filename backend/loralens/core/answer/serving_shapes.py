"""The answer about serving, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import TypedDict


class AdapterGroup(TypedDict):
    """Adapters of one rank."""

    rank: int
    count: int
    parameters_each: int
    bytes_each: int


class RankCount(TypedDict):
    """How many adapters of a rank fit beside base and cache."""

    rank: int
    count: int


class ServingGpu(TypedDict):
    """One GPU's verdict."""

    gpu: str
    name: str
    memory_bytes: int
    fits: bool
    headroom_bytes: int
    adapters_that_fit: list[RankCount]
    full_models_that_fit: int


class ServingTerm(TypedDict):
    """One line of the explanation."""

    name: str
    bytes: int
    formula: str
    substituted: str
    source: str


class ServingModel(TypedDict):
    """Which model."""

    id: str
    name: str
    family: str


class ServingAnswer(TypedDict):
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

"""An adapter of any format as one list of modules whose factors are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch


class Magnitude(NamedTuple):
    """DoRA's magnitudes of one module, (out_features,)."""

    dtype: torch.dtype
    read: Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Lazy:
    """One module in PEFT's sense: update = scaling * lora_b @ lora_a.

    Shapes: `lora_a()` (rank, in_features), `lora_b()` (out_features, rank); for an embedding in_features is the vocabulary.
    """

    module: str
    rank: int
    in_features: int
    out_features: int
    dtype: torch.dtype
    scaling: float
    is_embedding: bool
    lora_a: Callable[[], torch.Tensor]
    lora_b: Callable[[], torch.Tensor]
    magnitude: Magnitude | None = None


@dataclass(frozen=True, slots=True)
class LazySource:
    """Modules in the order of their names, and what the files say besides."""

    format: str
    modules: list[Lazy]
    base_model: str | None = None
    notes: list[str] = field(default_factory=list)

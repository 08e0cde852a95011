"""Shapes of reports on adapter files: inspecting and resizing."""

from __future__ import annotations

from pydantic import Field

from loralens.api.shape import Documented
from loralens.lab.words import ExactNumbers


class ResizeRequest(ExactNumbers, Documented):
    """Give either `rank` or `energy`."""

    rank: int | None = None
    energy: float | None = None
    mixed: bool = Field(False, description="With energy: a rank for each module.")


class ModuleAnswer(Documented):
    """One adapted module and the spectrum of its update."""

    module: str
    rank: int
    alpha: float
    scaling: float
    in_features: int
    out_features: int
    parameters: int
    singular_values: list[float]
    effective_rank: float
    stable_rank: float
    energy_by_rank: list[float]
    rank_for_energy: int
    norm: float


class ShrinkAnswer(Documented):
    """The smallest rank that keeps the asked share of every module's energy."""

    energy: float
    rank: int
    kept: float
    parameters: int
    bytes: int
    mixed_parameters: int
    mixed_bytes: int


class InspectAnswer(Documented):
    """All about an adapter; `id` is null when it was only looked at."""

    id: str | None
    rank: int
    alpha: float
    ranks: list[int]
    target_modules: list[str] | str
    base_model: str | None
    use_rslora: bool
    use_dora: bool
    bias: str
    modules_to_save: list[str]
    dtype: str
    parameters: int
    tensor_bytes: int
    file_bytes: int
    extra_parameters: int
    copied_parameters: int
    effective_rank: float
    energy_by_rank: list[float]
    shrink: ShrinkAnswer
    modules: list[ModuleAnswer]
    notes: list[str]


class ResizeModule(Documented):
    """What truncation did to one module."""

    module: str
    rank_before: int
    rank: int
    relative_error: float
    energy_kept: float


class ResizeAnswer(Documented):
    """The resized adapter, kept under `id` for download."""

    id: str
    rank: int
    relative_error: float
    parameters_before: int
    parameters: int
    bytes_before: int
    bytes: int
    file_bytes: int
    modules: list[ResizeModule]
    notes: list[str]

"""What an adapter is: rank, alpha, targets, parameters, bytes, and the spectrum of each of its updates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from loralens.lab.adapters.adapter import TOKENS, Adapter, targets_without_factors
from loralens.lab.adapters.begins import changed_base
from loralens.lab.adapters.spectrum import (
    ENERGY_SHARE,
    effective_rank,
    energy_by_rank,
    rank_for_energy,
    singular_values,
    stable_rank,
)
from loralens.lab.factors import Factors

_DTYPE_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True, slots=True)
class ModuleReport:
    """One adapted module: shapes, counts and the spectrum of its update."""

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


@dataclass(frozen=True, slots=True)
class Shrink:
    """What a smaller rank would keep: the smallest that leaves every module the asked share of its energy."""

    energy: float
    rank: int
    kept: float
    parameters: int
    bytes: int
    mixed_parameters: int
    mixed_bytes: int


@dataclass(frozen=True, slots=True)
class AdapterReport:
    """All that `loralens adapter inspect` prints and `POST /api/adapters/inspect` answers."""

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
    extra_parameters: int
    copied_parameters: int
    effective_rank: float
    energy_by_rank: list[float]
    shrink: Shrink
    modules: list[ModuleReport]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return asdict(self)


def inspect_adapter(adapter: Adapter, energy: float = ENERGY_SHARE) -> AdapterReport:
    """Inspect an adapter; `energy` is the share of squared norm that "could be rank k" must keep in every module."""
    modules = [_module(adapter, factors, energy) for factors in adapter.factors.values()]
    targets = adapter.config.target_modules
    copied = sum(tensor.numel() for tensor in adapter.copies.values())
    return AdapterReport(
        rank=adapter.config.rank,
        alpha=adapter.config.alpha,
        ranks=sorted({module.rank for module in modules}),
        target_modules=targets if isinstance(targets, str) else [*targets, *adapter.config.target_parameters],
        base_model=adapter.config.base_model,
        use_rslora=adapter.config.use_rslora,
        use_dora=adapter.config.use_dora,
        bias=adapter.config.bias,
        modules_to_save=list(adapter.config.modules_to_save),
        dtype=" and ".join(sorted({_DTYPE_NAMES[f.lora_a.dtype] for f in adapter.factors.values()})),
        parameters=adapter.parameters,
        tensor_bytes=adapter.tensor_bytes,
        extra_parameters=sum(tensor.numel() for tensor in adapter.extra.values()) - copied,
        copied_parameters=copied,
        effective_rank=sum(module.effective_rank for module in modules) / len(modules),
        energy_by_rank=_pooled_energy(modules),
        shrink=_shrink(adapter, modules, energy),
        modules=modules,
        notes=_notes(adapter),
    )


def _module(adapter: Adapter, factors: Factors, energy: float) -> ModuleReport:
    values = singular_values(factors)
    return ModuleReport(
        module=factors.module,
        rank=factors.rank,
        alpha=adapter.config.alpha_of(factors.module),
        scaling=factors.scaling,
        in_features=int(factors.lora_a.shape[1]),
        out_features=int(factors.lora_b.shape[0]),
        parameters=factors.parameters,
        singular_values=[float(value) for value in values],
        effective_rank=effective_rank(values),
        stable_rank=stable_rank(values),
        energy_by_rank=energy_by_rank(values),
        rank_for_energy=rank_for_energy(values, energy),
        norm=float(torch.linalg.vector_norm(values)),
    )


def _pooled_energy(modules: list[ModuleReport]) -> list[float]:
    """Share of all modules' energy together that a uniform rank 1, 2, … keeps."""
    longest = max(len(module.singular_values) for module in modules)
    energy = [sum(m.singular_values[i] ** 2 for m in modules if i < len(m.singular_values)) for i in range(longest)]
    total = sum(energy)
    return [1 - sum(energy[rank:]) / total if total > 0 else 1.0 for rank in range(1, longest + 1)]


def _shrink(adapter: Adapter, modules: list[ModuleReport], energy: float) -> Shrink:
    rank = max(module.rank_for_energy for module in modules)
    pooled = _pooled_energy(modules)
    uniform = _after(adapter, {module.module: min(rank, module.rank) for module in modules})
    mixed = _after(adapter, {module.module: module.rank_for_energy for module in modules})
    return Shrink(energy, rank, pooled[min(rank, len(pooled)) - 1], *uniform, *mixed)


def _after(adapter: Adapter, ranks: dict[str, int]) -> tuple[int, int]:
    """Parameters and tensor bytes once each module has the given rank."""
    parameters, size = adapter.parameters, adapter.tensor_bytes
    for module, factors in adapter.factors.items():
        saved = factors.experts * (factors.rank - ranks[module]) * (factors.lora_a.shape[1] + factors.lora_b.shape[0])
        parameters -= saved
        size -= saved * factors.lora_a.element_size()
    return parameters, size


def _notes(adapter: Adapter) -> list[str]:
    notes = list(adapter.notes)
    if adapter.config.use_dora:
        notes.append("DoRA: the spectrum is that of the low-rank part; the magnitude vector rescales its rows.")
    if name := changed_base(adapter.config):
        notes.append(
            f"It began as {name}, which changed its base: it belongs to the base that PEFT makes anew on loading, and "
            "not to the published one. The spectrum is that of the factors, not of what was learned."
        )
    if missing := targets_without_factors(adapter):
        notes.append(f"target_modules also names {', '.join(missing)[:200]}: PEFT passes over names without a module.")
    if any(factors.experts > 1 for factors in adapter.factors.values()):
        notes.append(
            "Some factors are of stacked experts: a rank is each expert's, and the spectrum is pooled, the root of the sum of "
            "their squares."
        )
    if adapter.config.acts_otherwise:
        notes.append(
            f"{' and '.join(adapter.config.acts_otherwise)} say where its updates act; the spectrum is that of the updates."
        )
    if adapter.config.trains_tokens:
        notes.append(
            "Single rows of an embedding are stored as trained: they have no spectrum, and resizing keeps them."
        )
    if adapter.copies:
        notes.append("Embeddings are stored with the factors, untrained: they count as bytes, not as parameters.")
    if any(name not in adapter.copies and not name.endswith(TOKENS) for name in adapter.extra):
        notes.append("Some modules are stored in full; they count as parameters and bytes and have no spectrum here.")
    if isinstance(adapter.config.target_modules, str):
        notes.append("target_modules is a pattern; it was not run, the modules listed are those in the file.")
    return notes

"""Give an adapter another rank: the best one there is (truncated SVD), with the error it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.begins import needs_its_base
from loralens.lab.adapters.config import MAX_RANK
from loralens.lab.adapters.spectrum import Decomposition, decompose, decompose_product, rank_for_energy
from loralens.lab.factors import Factors


@dataclass(frozen=True, slots=True)
class ModuleError:
    """What truncation did to one module's update; errors are Frobenius norms relative to the update's own."""

    module: str
    rank_before: int
    rank: int
    relative_error: float
    energy_kept: float


@dataclass(frozen=True, slots=True)
class Resized:
    """A resized adapter and the error of each of its updates."""

    adapter: Adapter
    rank: int
    relative_error: float
    parameters_before: int
    parameters: int
    bytes_before: int
    bytes: int
    modules: list[ModuleError]
    notes: list[str]

    def to_dict(self) -> dict[str, object]:
        """Everything but the adapter itself, as JSON-able values."""
        return {
            "rank": self.rank,
            "relative_error": self.relative_error,
            "parameters_before": self.parameters_before,
            "parameters": self.parameters,
            "bytes_before": self.bytes_before,
            "bytes": self.bytes,
            "modules": [asdict(module) for module in self.modules],
            "notes": self.notes,
        }


def resize_adapter(
    adapter: Adapter, *, rank: int | None = None, energy: float | None = None, mixed: bool = False
) -> Resized:
    """Resize to `rank`, or to the smallest rank that keeps the share `energy` of each update.

    With `mixed`, and `energy`, each module gets its own smallest rank (as PEFT's `rank_pattern`). The scaling is
    folded into the factors, so the new alpha equals the new rank. A rank above the present one pads with zeros.
    Errors are measured on the factors as stored, rounding to their number format included.
    """
    if (rank is None) == (energy is None):
        raise InvalidInput("give either rank or energy", field="rank", hint="rank=4, or energy=0.99")
    if rank is not None and not 1 <= rank <= MAX_RANK:
        raise InvalidInput(f"rank must be from 1 to {MAX_RANK}, got {rank}", field="rank", hint="try 4")
    needs_its_base(adapter.config, "with another rank or scaling PEFT would rebuild another one")
    if mixed and adapter.config.target_parameters:
        raise InvalidInput("rank_pattern names parameters, and which of a module's parameters a pair of factors is of does not "
                           "stand in the file", field="mixed", hint="one rank for all: leave mixed out")  # fmt: skip
    parts = {module: decompose(factors) for module, factors in adapter.factors.items()}
    if energy is not None:
        wanted = {module: rank_for_energy(part.pooled, energy) for module, part in parts.items()}
    else:
        wanted = dict.fromkeys(parts, int(rank or 1))
    largest = max(wanted.values())
    if not mixed:
        wanted = dict.fromkeys(parts, largest)
    factors = {module: _truncated(adapter.factors[module], parts[module], wanted[module]) for module in parts}
    config = replace(
        adapter.config.begun_anew(),
        rank=largest,
        alpha=float(largest),
        use_rslora=False,
        rank_pattern=_pattern(wanted, largest, int),
        alpha_pattern=_pattern(wanted, largest, float),
    )
    resized = Adapter(config, factors, adapter.extra)
    errors = [_error(adapter.factors[module], parts[module], factors[module]) for module in parts]
    squared = sum((e.relative_error * float(torch.linalg.vector_norm(parts[e.module].values))) ** 2 for e in errors)
    total = sum(float(part.values.square().sum()) for part in parts.values())
    return Resized(
        adapter=resized,
        rank=largest,
        relative_error=(squared / total) ** 0.5 if total > 0 else 0.0,
        parameters_before=adapter.parameters,
        parameters=resized.parameters,
        bytes_before=adapter.tensor_bytes,
        bytes=resized.tensor_bytes,
        modules=errors,
        notes=list(adapter.notes),
    )


def _truncated(factors: Factors, part: Decomposition, rank: int) -> Factors:
    stack, kept = part.values.shape[:-1], min(rank, part.values.shape[-1])
    root = part.values[..., :kept].sqrt()
    lora_a = part.left.new_zeros(*stack, rank, factors.lora_a.shape[1])
    lora_b = part.left.new_zeros(*stack, factors.lora_b.shape[0], rank)
    # Both factors carry the root of the singular values: neither dwarfs the other when rounded to 16 bit.
    lora_a[..., :kept, :] = root[..., None] * part.right[..., :kept, :]
    lora_b[..., :kept] = part.left[..., :kept] * root[..., None, :]
    dtype = factors.lora_a.dtype
    if lora_a.abs().max() > torch.finfo(dtype).max or lora_b.abs().max() > torch.finfo(dtype).max:
        raise InvalidInput(f"{factors.module}: its numbers are too large for {dtype} once the scaling is folded in",
                           field="adapter", hint="loralens adapter doctor says whether its training diverged")  # fmt: skip
    # PEFT scales what lora_B gives, its bias included.
    bias = None if factors.bias is None else (factors.bias.double() * factors.scaling).to(factors.bias.dtype)
    return replace(factors.of(lora_a.to(dtype), lora_b.to(dtype)), bias=bias, scaling=1.0)


def _error(before: Factors, part: Decomposition, after: Factors) -> ModuleError:
    norm = float(torch.linalg.vector_norm(part.values))
    (old_a, old_b), (new_a, new_b) = before.matrices, after.matrices
    # The difference of two low-rank updates is low-rank too: its norm comes from the same small matrix.
    difference = decompose_product(
        torch.cat([old_a.double() * before.scaling, -new_a.double()], dim=-2),
        torch.cat([old_b.double(), new_b.double()], dim=-1),
        1.0,
    )
    distance = float(torch.linalg.vector_norm(difference.values))
    kept = float(part.values[..., : after.rank].square().sum() / part.values.square().sum()) if norm > 0 else 1.0
    return ModuleError(before.module, before.rank, after.rank, distance / norm if norm > 0 else 0.0, kept)


def _pattern(ranks: Mapping[str, int], default: int, kind: type) -> tuple[tuple[str, Any], ...]:
    """Modules whose rank differs from the default, by full name.

    PEFT reads a key as a pattern for a name's end, and a full name followed by nothing matches only itself.
    """
    return tuple((module, kind(rank)) for module, rank in ranks.items() if rank != default)

"""A LoRA out of a full fine-tune: the best approximation of each weight's change, read from two folders tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch

from loralens.core.architecture.module import Linear
from loralens.core.architecture.registry import build
from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.jsontext import from_json
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.config import MAX_RANK, AdapterConfig
from loralens.lab.adapters.stream import DTYPES, Weights
from loralens.lab.factors import Factors

EMBEDDINGS: Final = ("embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out", "word_embeddings")
"""Tables, and heads that may share a table's weight: left out, as `all-linear` leaves out the head."""
WHOLE: Final = 768
"""Smaller side of a matrix up to which all its singular values are computed; above, those of a random range."""
OVERSAMPLED: Final = 16
POWERS: Final = 4
"""Columns beyond the rank, and power iterations. Source: Halko, Martinsson and Tropp 2011, arXiv:0909.4061, algorithms
4.4 and 5.1; the values are an assumption, and the error stated with the answer is measured, not estimated."""


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One weight's change: its norm beside the weight's own, and what the adapter leaves of it (Frobenius norms)."""

    module: str
    relative_change: float
    rank: int
    energy_kept: float
    relative_error: float


@dataclass(frozen=True, slots=True)
class Extracted:
    """The adapter, and what of the whole change it carries.

    `left_out` counts changed tensors that no factor can carry (norms, biases, embeddings), `left_out_share` their share
    of the squared change.
    """

    adapter: Adapter
    relative_error: float
    energy_kept: float
    left_out: list[str]
    left_out_share: float
    layers: list[LayerChange]

    def to_dict(self) -> dict[str, object]:
        """Everything but the adapter itself, as JSON-able values."""
        return {
            "rank": self.adapter.config.rank,
            "parameters": self.adapter.parameters,
            "relative_error": self.relative_error,
            "energy_kept": self.energy_kept,
            "left_out": self.left_out,
            "left_out_share": self.left_out_share,
            "layers": [asdict(layer) for layer in self.layers],
        }


def extract_adapter(base: Path, tuned: Path, rank: int, *, seed: int = 0) -> Extracted:
    """Extract a LoRA of a rank from the difference of two folders of safetensors; three matrices are in memory at a time.

    Factors are in the tuned weights' number format; alpha equals the rank. Modules that did not change get none.

    Raises: `NotFound` or `InvalidInput` for folders that are not two versions of one model, or of which nothing differs.
    """
    if not 1 <= rank <= MAX_RANK:
        raise InvalidInput(f"rank must be from 1 to {MAX_RANK}, got {rank}", field="rank", hint="try 16")
    before, after = Weights(base), Weights(tuned)
    _same_model(before, after)
    turned, model_name = _transposed(base), _name(base)
    generator = torch.Generator().manual_seed(seed)
    factors: dict[str, Factors] = {}
    layers: list[LayerChange] = []
    left: list[str] = []
    kept = error = rest = 0.0
    for name, change, weight_norm in _changes(before, after):
        squared = float(change.double().square().sum())
        if squared == 0:
            continue
        module = name.removesuffix(".weight")
        if change.dim() != 2 or module == name or module.rpartition(".")[2] in EMBEDDINGS:
            left.append(name)
            rest += squared
            continue
        found = _factors(module, change.T if module in turned else change, rank, generator, after.entry(name).dtype)
        difference = (change.T if module in turned else change) - found.lora_b.float() @ found.lora_a.float()
        missed = float(difference.double().square().sum())
        factors[module] = found
        layers.append(
            LayerChange(
                module, (squared**0.5) / weight_norm if weight_norm else 0.0, found.rank,
                max(0.0, 1 - missed / squared), (missed / squared) ** 0.5,
            )
        )  # fmt: skip
        kept, error = kept + squared, error + missed
    if not factors:
        raise InvalidInput("no linear layer differs between the two folders", field="tuned")
    config = AdapterConfig(
        rank=rank,
        alpha=float(rank),
        target_modules=tuple(sorted(factors)),
        base_model=model_name,
        fan_in_fan_out=bool(turned),
        rank_pattern=tuple((module, one.rank) for module, one in factors.items() if one.rank != rank),
        alpha_pattern=tuple((module, float(one.rank)) for module, one in factors.items() if one.rank != rank),
    )
    whole = kept + rest
    return Extracted(
        Adapter(config, factors), (error / kept) ** 0.5, 1 - error / kept, sorted(left), rest / whole, layers
    )


def _same_model(before: Weights, after: Weights) -> None:
    names = set(before)
    odd = sorted(names ^ set(after))
    common = [name for name in before if name in after]
    if not common or len(odd) > len(common):
        raise InvalidInput(
            f"{len(common)} tensors have the same name in both folders, {len(odd)} in one alone"
            + (f" ({odd[0]})" if odd else ""),
            field="tuned", hint="name the folder of the base, then that of its full fine-tune",
        )  # fmt: skip
    for name in common:
        one, two = before.entry(name), after.entry(name)
        if one.shape != two.shape:
            raise InvalidInput(
                f"{name} is {list(one.shape)} in the base and {list(two.shape)} in the fine-tune: tokens were added, or they "
                "are of different models",
                field="tuned",
            )


def _changes(before: Weights, after: Weights) -> Iterator[tuple[str, torch.Tensor, float]]:
    """Name, change in float32 and norm of the weight; tensors of whole numbers and those in one folder alone are passed over."""
    for name in sorted(before):
        if name in after and DTYPES[before.entry(name).dtype].is_floating_point:
            weight = before.read(name).float()
            norm = float(torch.linalg.vector_norm(weight))
            change = after.read(name).float().sub_(weight)
            del weight
            if not torch.isfinite(change).all():
                raise InvalidInput(f"{name} holds numbers that are not finite (NaN or infinity)", field="tuned")
            yield name, change, norm


def _factors(module: str, change: torch.Tensor, rank: int, generator: torch.Generator, dtype: str) -> Factors:
    rank = min(rank, *change.shape)
    if min(change.shape) <= WHOLE:
        left, values, right = torch.linalg.svd(change.double(), full_matrices=False)
    else:
        basis = _range(change, min(rank + OVERSAMPLED, *change.shape), generator)
        small, values, right = torch.linalg.svd(basis.T @ change, full_matrices=False)
        left = basis @ small
    root = values[:rank].sqrt()
    # A float32 weight keeps its factors' digits; rounding to 16 bits is part of the error that is stated.
    target = DTYPES[dtype] if dtype in ("F32", "F16", "BF16") else torch.float32
    return Factors(module, (root[:, None] * right[:rank]).to(target), (left[:, :rank] * root).to(target), 1.0)


def _range(matrix: torch.Tensor, columns: int, generator: torch.Generator) -> torch.Tensor:
    """An orthonormal basis, (rows, columns), of where the matrix is largest."""
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], columns, generator=generator)).Q
    for _ in range(POWERS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    return basis


def _settings(folder: Path) -> dict[str, object]:
    try:
        found = from_json((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _transposed(base: Path) -> frozenset[str]:
    """Layers whose weight is stored (in_features, out_features): transformers' Conv1D, in GPT-2 and its kin."""
    try:
        root = build(_settings(base))
    except LoraLensError:
        return frozenset()
    return frozenset(name for name, module in root.walk() if isinstance(module, Linear) and module.transposed)


def _name(base: Path) -> str:
    name = _settings(base).get("_name_or_path")
    return name if isinstance(name, str) and 0 < len(name) <= 512 else base.resolve().name

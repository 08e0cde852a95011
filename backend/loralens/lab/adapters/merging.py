"""Merge several adapters of one base into one, as PEFT's `add_weighted_adapter` does it, without the base.

Source: huggingface/peft 0.21.2 tuners/lora/model.py, add_weighted_adapter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.answers import MergeAnswer
from loralens.lab.adapters.begins import needs_its_base
from loralens.lab.adapters.config import MAX_RANK
from loralens.lab.adapters.spectrum import decompose
from loralens.lab.adapters.weighing import SIGNS, Signs, Weighing
from loralens.lab.factors import Factors

ON_FACTORS: Final = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")
"""Each factor by itself, all of one rank: quick, and rough, since a product of sums is not a sum of products."""
ON_UPDATES: Final = ("svd", "ties_svd", "dare_linear_svd", "dare_ties_svd", "magnitude_prune_svd")
"""The updates themselves, then the best approximation of a rank."""
COMBINATIONS: Final = ("cat", *ON_FACTORS, *ON_UPDATES)
"""PEFT's names. `cat` is exact: the ranks add up."""
WITH_BIAS: Final = ("cat", "svd")
"""Those that add updates up, and so biases of lora_B too (PEFT leaves such biases out)."""
MOST_ADAPTERS: Final = 32


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged adapter, and how far its update is from the weighted sum of the updates (relative, Frobenius norm)."""

    adapter: Adapter
    combination: str
    rank: int
    relative_error: float
    notes: list[str]

    def to_dict(self, file_bytes: int) -> MergeAnswer:
        """Everything but the adapter itself, with the bytes that it has on disk."""
        return {
            "combination": self.combination,
            "rank": self.rank,
            "relative_error": self.relative_error,
            "parameters": self.adapter.parameters,
            "modules": len(self.adapter.factors),
            "notes": self.notes,
            "file_bytes": file_bytes,
        }


def merge_adapters(
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    combination: str = "svd",
    *,
    rank: int | None = None,
    density: float = 0.5,
    signs: Signs = "total",
    seed: int = 0,
) -> Merged:
    """Merge adapters with weights.

    Args:
        adapters: two or more, of one base.
        weights: one for each; below zero takes an adapter's effect away.
        combination: one of `COMBINATIONS`.
        rank: of the result, for the combinations with svd; the largest of the adapters' by default.
        density: share of the numbers that TIES, DARE and magnitude_prune keep.
        signs: by what TIES elects a sign.
        seed: for what DARE drops.

    Raises: `InvalidInput` for adapters or words that do not go together.
    """
    _check(adapters, weights, combination, rank, density, signs)
    generator = torch.Generator().manual_seed(seed)
    weighing = Weighing(combination.removesuffix("_svd"), density, signs, generator)
    ranks = [max(factors.rank for factors in adapter.factors.values()) for adapter in adapters]
    wanted = sum(ranks) if combination == "cat" else rank or max(ranks)
    if wanted > MAX_RANK:
        raise InputTooLarge(f"the ranks add up to {wanted}, at most {MAX_RANK} is written", field="combination",
                            hint="--type svd with --rank")  # fmt: skip
    with_bias = any(adapter.config.lora_bias for adapter in adapters)
    modules = list(dict.fromkeys(module for adapter in adapters for module in adapter.factors))
    merged: dict[str, Factors] = {}
    squared = total = 0.0
    for module in modules:
        own = [(a.factors[module], w) for a, w in zip(adapters, weights, strict=True) if module in a.factors]
        _one_shape(module, [factors for factors, _ in own])
        whole = _together(own)
        _held(module, whole.lora_a)
        if combination == "cat":
            factors = _padded(whole, wanted)
        elif combination == "svd":
            factors = _truncated(whole, wanted)
        elif combination in ON_FACTORS:
            factors = _by_factors(own, weighing)
        else:
            factors = _by_updates(own, weighing, wanted)
        _held(module, factors.lora_a, factors.lora_b)
        if with_bias and factors.bias is None:  # of adapters without any
            factors = replace(factors, bias=factors.lora_b.new_zeros(factors.lora_b.shape[0]))
        merged[module] = factors
        squared += _distance(whole, factors) ** 2
        total += float(decompose(whole).values.square().sum())
    adapter = Adapter(_config(adapters, modules, wanted), merged)
    error = math.sqrt(squared / total) if total else 0.0
    return Merged(adapter, combination, wanted, error, _notes(adapters))


def _check(
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    combination: str,
    rank: int | None,
    density: float,
    signs: str,
) -> None:
    if not 2 <= len(adapters) <= MOST_ADAPTERS or len(weights) != len(adapters):
        raise InvalidInput(
            f"{len(adapters)} adapters with {len(weights)} weights; 2 to {MOST_ADAPTERS} with one each are merged",
            field="weights",
        )
    if not all(math.isfinite(weight) for weight in weights):
        raise InvalidInput("weights must be finite numbers", field="weights")
    if combination not in COMBINATIONS:
        raise InvalidInput(f"unknown combination {combination[:40]!r}", field="combination",
                           hint=f"one of {', '.join(COMBINATIONS)}")  # fmt: skip
    if signs not in SIGNS:
        raise InvalidInput(f"signs must be one of {', '.join(SIGNS)}, got {signs!r:.40}", field="signs")
    if not 0 < density <= 1:
        raise InvalidInput(f"density must be above 0 and at most 1, got {density:g}", field="density", hint="try 0.5")
    if rank is not None and (not combination.endswith("svd") or not 1 <= rank <= MAX_RANK):
        raise InvalidInput(f"rank is for the combinations with svd, from 1 to {MAX_RANK}", field="rank")
    ranks = {factors.rank for adapter in adapters for factors in adapter.factors.values()}
    if combination in ON_FACTORS and len(ranks) > 1:
        raise InvalidInput(
            f"{combination} needs one rank, these have {', '.join(map(str, sorted(ranks)))}",
            field="combination",
            hint="cat, svd, or loralens adapter resize first",
        )
    for number, adapter in enumerate(adapters, 1):
        needs_its_base(adapter.config, "a sum of such adapters belongs to no base")
        what = _not_summed(adapter, combination)
        if what is not None:
            raise InvalidInput(f"adapter {number} has {what}",
                               field="adapters", hint="merge it into its base with PEFT: merge_and_unload()")  # fmt: skip
    if len({adapter.config.fan_in_fan_out for adapter in adapters}) > 1:
        raise InvalidInput("fan_in_fan_out differs between the adapters: they are of different bases", field="adapters")


def _not_summed(adapter: Adapter, combination: str) -> str | None:
    """What of an adapter has no weighted sum, and why."""
    if adapter.config.use_dora:
        return "DoRA's magnitudes, which scale base and update together: a sum of such updates is no adapter without the base"
    if adapter.config.lora_bias and combination not in WITH_BIAS:
        return f"biases (lora_bias), and PEFT's {combination} is not defined for them; {' and '.join(WITH_BIAS)} add them up"
    if adapter.config.acts_otherwise:
        return f"{' and '.join(adapter.config.acts_otherwise)}: its update does not act everywhere, and a sum of updates would"
    if adapter.config.target_parameters:
        return "factors of parameters (target_parameters), which PEFT does not merge either: their order depends on the base"
    if adapter.config.trains_tokens:
        return "rows of an embedding trained in full: the file holds the rows, and not what changed in them"
    if len(adapter.extra) > len(adapter.copies):
        return "modules or biases trained in full: the file holds the weights, and not what changed in them"
    return None


def _one_shape(module: str, factors: list[Factors]) -> None:
    shapes = {(f.lora_b.shape[0], f.lora_a.shape[1]) for f in factors}
    if len(shapes) > 1:
        raise InvalidInput(f"{module} has shapes {sorted(map(tuple, shapes))}: the adapters are of different bases",
                           field="adapters")  # fmt: skip


def _together(own: list[tuple[Factors, float]]) -> Factors:
    """The weighted sum itself: lora_A one above the other, lora_B side by side."""
    first = own[0][0]
    lora_a = torch.cat([factors.lora_a * (weight * factors.scaling) for factors, weight in own])
    lora_b = torch.cat([factors.lora_b.to(first.lora_b.dtype) for factors, _ in own], 1)
    biases = [f.bias.double() * (weight * f.scaling) for f, weight in own if f.bias is not None]
    bias = torch.stack(biases).sum(0).to(first.lora_b.dtype) if biases else None
    return replace(first, lora_a=lora_a, lora_b=lora_b, scaling=1.0, bias=bias)


def _held(module: str, *tensors: torch.Tensor) -> None:
    """Refuse what its number format cannot hold. Raises: `InvalidInput`."""
    if not all(torch.isfinite(tensor).all() for tensor in tensors):
        raise InvalidInput(f"{module}: the updates' numbers are too large to be added", field="adapters",
                           hint="loralens adapter doctor says which adapter they are of")  # fmt: skip


def _padded(factors: Factors, rank: int) -> Factors:
    """Zeros up to a rank: modules that not all adapters have."""
    more = rank - factors.rank
    return replace(
        factors,
        lora_a=torch.nn.functional.pad(factors.lora_a, (0, 0, 0, more)),
        lora_b=torch.nn.functional.pad(factors.lora_b, (0, more)),
    )


def _truncated(factors: Factors, rank: int) -> Factors:
    part = decompose(factors)
    kept = min(rank, len(part.values))
    dtype = factors.lora_a.dtype
    lora_b = (part.left[:, :kept] * part.values[:kept]).to(dtype)
    return _padded(replace(factors, lora_a=part.right[:kept].to(dtype), lora_b=lora_b, scaling=1.0), rank)


def _by_factors(own: list[tuple[Factors, float]], weighing: Weighing) -> Factors:
    """Each factor by itself, with the root of weight times scaling on both; a sign stands on lora_A alone."""
    first = own[0][0]
    both = [weight * factors.scaling for factors, weight in own]
    roots = [math.sqrt(abs(one)) for one in both]
    signed = [math.copysign(root, one) for root, one in zip(roots, both, strict=True)]
    lora_a = weighing.of([factors.lora_a for factors, _ in own], signed)
    lora_b = weighing.of([factors.lora_b for factors, _ in own], roots)
    return replace(first, lora_a=lora_a.to(first.lora_a.dtype), lora_b=lora_b.to(first.lora_b.dtype), scaling=1.0)


def _by_updates(own: list[tuple[Factors, float]], weighing: Weighing, rank: int) -> Factors:
    first = own[0][0]
    updates = [factors.lora_b @ factors.lora_a * factors.scaling for factors, _ in own]
    if first.is_embedding:
        updates = [update.T.contiguous() for update in updates]  # PEFT weighs a table as it stands
    whole = weighing.of(updates, [weight for _, weight in own])
    _held(first.module, whole)
    left, values, right = torch.linalg.svd(whole.T if first.is_embedding else whole, full_matrices=False)
    kept = min(rank, len(values))
    dtype = first.lora_a.dtype
    lora_b = (left[:, :kept] * values[:kept]).to(dtype)
    return _padded(replace(first, lora_a=right[:kept].to(dtype), lora_b=lora_b, scaling=1.0), rank)


def _distance(wanted: Factors, got: Factors) -> float:
    minus = replace(got, lora_a=-got.lora_a.double())
    difference = _together([(replace(wanted, lora_b=wanted.lora_b.double()), 1.0), (minus, 1.0)])
    return float(torch.linalg.vector_norm(decompose(difference).values))


def _config(adapters: Sequence[Adapter], modules: list[str], rank: int) -> Any:
    targets: tuple[str, ...] = tuple(sorted(modules))
    if all(not isinstance(adapter.config.target_modules, str) for adapter in adapters):
        targets = tuple(sorted({name for adapter in adapters for name in adapter.config.target_modules}))
    return replace(
        adapters[0].config.begun_anew(),
        rank=rank,
        alpha=float(rank),
        use_rslora=False,
        rank_pattern=(),
        alpha_pattern=(),
        target_modules=targets,
        exclude_modules=(),
        modules_to_save=(),
        lora_bias=any(adapter.config.lora_bias for adapter in adapters),
    )


def _notes(adapters: Sequence[Adapter]) -> list[str]:
    notes = [f"Adapter {number}: {note}" for number, adapter in enumerate(adapters, 1) for note in adapter.notes]
    bases = sorted({adapter.config.base_model for adapter in adapters if adapter.config.base_model})
    if len(bases) > 1:
        notes.append(f"The adapters name different bases: {', '.join(bases)[:200]}.")
    if adapters[0].config.use_rslora:
        notes.append(
            "The scaling is folded in and use_rslora is off; PEFT leaves it on, and its result is sqrt(rank) too large."
        )
    if any(adapter.copies for adapter in adapters):
        notes.append("Untrained copies of embeddings are left out.")
    return notes

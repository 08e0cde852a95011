"""Singular values of an adapter's updates, without ever forming an update.

With B = Q_b R_b and Aᵀ = Q_a R_a, the update s·BA = Q_b (s·R_b R_aᵀ) Q_aᵀ has the singular values of the small
rank × rank matrix in the middle: O((in + out)·rank²) work and memory instead of O(in·out).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from loralens.core.errors import InvalidInput
from loralens.lab.factors import Factors

ENERGY_SHARE: Final = 0.99
"""Share of energy used for "could be rank k" unless another is asked for (an assumption, shown with the answer)."""


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Update = left @ diag(values) @ right, values descending.

    Shapes: left (out_features, k), values (k,), right (k, in_features), k = min(rank, in_features, out_features); with
    experts as a first dimension where a parameter stacks them.
    """

    left: torch.Tensor
    values: torch.Tensor
    right: torch.Tensor

    @property
    def pooled(self) -> torch.Tensor:
        """Values (k,): of stacked experts the root of the sum of their squares, so that its energy is theirs together."""
        return self.values if self.values.dim() == 1 else self.values.square().sum(0).sqrt()


def decompose(factors: Factors) -> Decomposition:
    """Singular value decomposition of `scaling * lora_b @ lora_a` in float64."""
    lora_a, lora_b = factors.matrices
    return decompose_product(lora_a, lora_b, factors.scaling)


def decompose_product(lora_a: torch.Tensor, lora_b: torch.Tensor, scaling: float) -> Decomposition:
    """The same of matrices, as `Factors.matrices` has them."""
    left_basis, left_small = torch.linalg.qr(lora_b.to(torch.float64))
    right_basis, right_small = torch.linalg.qr(lora_a.to(torch.float64).mT)
    u, values, vh = torch.linalg.svd(scaling * left_small @ right_small.mT, full_matrices=False)
    return Decomposition(left_basis @ u, values, vh @ right_basis.mT)


def singular_values(factors: Factors) -> torch.Tensor:
    """Singular values of the update, descending, float64. Shape (min(rank, in_features, out_features),).

    Those of stacked experts are pooled, as `Decomposition.pooled`.
    """
    lora_a, lora_b = factors.matrices
    left_small = torch.linalg.qr(lora_b.to(torch.float64), mode="r").R
    right_small = torch.linalg.qr(lora_a.to(torch.float64).mT, mode="r").R
    values: torch.Tensor = torch.linalg.svdvals(factors.scaling * left_small @ right_small.mT)
    return values if values.dim() == 1 else values.square().sum(0).sqrt()


def effective_rank(values: torch.Tensor) -> float:
    """Exp of the entropy of the singular values' shares: between 1 and their number; 0 for a zero update.

    Source: Roy and Vetterli 2007, "The effective rank", definition 1.

    >>> round(effective_rank(torch.tensor([1.0, 1.0, 1.0, 0.0])), 6)
    3.0
    """
    total = values.sum()
    if total <= 0:
        return 0.0
    shares = values / total
    shares = shares[shares > 0]
    return float(torch.exp(-(shares * shares.log()).sum()))


def stable_rank(values: torch.Tensor) -> float:
    """Squared Frobenius norm over squared spectral norm; 0 for a zero update.

    Source: Rudelson and Vershynin 2007, arXiv:math/0503442.
    """
    return float(values.square().sum() / values[0].square()) if values[0] > 0 else 0.0


def energy_by_rank(values: torch.Tensor) -> list[float]:
    """Share of the update's squared Frobenius norm that the best approximation of rank 1, 2, … keeps.

    Source: Eckart and Young 1936. A zero update is kept whole by any rank.
    """
    energy = values.square()
    total = energy.sum()
    if total <= 0:
        return [1.0] * len(values)
    # Tail sums, smallest first: 1 - tail keeps the digits that matter near a share of one.
    tails = torch.cat([energy.flip(0).cumsum(0).flip(0)[1:], energy.new_zeros(1)])
    return [float(share) for share in 1 - tails / total]


def rank_for_energy(values: torch.Tensor, share: float = ENERGY_SHARE) -> int:
    """Smallest rank that keeps at least `share` of the energy (1 for a zero update).

    >>> rank_for_energy(torch.tensor([10.0, 0.5, 0.1]), 0.99)
    1
    """
    if not 0 < share <= 1:
        raise InvalidInput(f"energy must be above 0 and at most 1, got {share}", field="energy", hint="try 0.99")
    kept = energy_by_rank(values)
    return next((rank for rank, part in enumerate(kept, 1) if part >= share), len(kept))

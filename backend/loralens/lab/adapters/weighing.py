"""How several tensors become one: PEFT's task arithmetic, pruning by size or by chance, and the election of signs.

Source: huggingface/peft 0.21.2 utils/merge_utils.py; Yadav et al. 2023, arXiv:2306.01708 (TIES); Yu et al. 2023,
arXiv:2311.03099 (DARE).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import torch

Signs = Literal["total", "frequency"]
SIGNS: Final[tuple[Signs, ...]] = ("total", "frequency")


@dataclass(frozen=True, slots=True)
class Weighing:
    """What is done to the tensors before they are added, under PEFT's name for it."""

    name: str
    density: float
    signs: Signs
    generator: torch.Generator

    def of(self, tensors: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
        """One tensor of the tensors' shape, in float32 at least."""
        kept = [self._pruned(tensor) for tensor in tensors]
        stacked = torch.stack(kept)
        factor = torch.tensor(weights).reshape(-1, *[1] * kept[0].dim())
        weighted = stacked * factor
        if not self.name.endswith("ties"):
            return weighted.sum(0)
        balance = stacked.sum(0) if self.signs == "total" else stacked.sign().sum(0)
        agrees = stacked.sign() == torch.where(balance >= 0, 1, -1)
        return (weighted * agrees).sum(0) / agrees.sum(0).clamp(min=1.0)

    def _pruned(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.name in ("linear", "svd"):
            return tensor
        if self.name.startswith("dare"):
            chance = torch.full_like(tensor, self.density)
            return tensor * torch.bernoulli(chance, generator=self.generator) / self.density
        kept = torch.zeros_like(tensor).reshape(-1)
        largest = tensor.abs().reshape(-1).topk(int(self.density * tensor.numel())).indices
        kept[largest] = 1
        return tensor * kept.reshape(tensor.shape)

"""LoRA written out with PyTorch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul.factors import folded, transposed
from loralens.lab.matmul.problem import Work
from loralens.lab.matmul.variants.base import Variant


class Eager(Variant):
    """linear(x, W) + linear(linear(x, A), B)·s. Source: peft 0.21, tuners/lora/layer.py, Linear.forward."""

    id = "eager"

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        return linear(p.x, p.weight(index)) + linear(linear(p.x, p.lora_a), p.lora_b) * p.scaling


class Addmm(Variant):
    """The second product adds into the base's output, with the scale inside."""

    id = "addmm"

    def prepare(self) -> None:
        self.lora_bt, self.left = folded(transposed(self.problem.lora_b), self.problem.scaling)

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        return linear(p.x, p.weight(index)).addmm_(linear(p.x, p.lora_a), self.lora_bt, alpha=self.left)


class Stacked(Variant):
    """A below W in one matrix, so that one product gives both."""

    id = "stacked"
    copies_of_weight = 1.0

    def prepare(self) -> None:
        p = self.problem
        self.lora_bt, self.left = folded(transposed(p.lora_b), p.scaling)
        self.both = [torch.cat([weight, p.lora_a]) for weight in p.weights]

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        both = linear(p.x, self.both[index % p.copies])
        return both[:, : p.out_features].addmm_(both[:, p.out_features :], self.lora_bt, alpha=self.left)


class FlopOrder(Variant):
    """(x·Aᵀ)·Bᵀ or x·(B·A)ᵀ, whichever has fewer operations. Source: RunLoRA, arXiv:2312.03415, section 3."""

    id = "flop_order"

    def prepare(self) -> None:
        p = self.problem
        factors = p.in_features + p.out_features
        self.low_rank_first = p.rows * p.rank * factors <= p.in_features * p.out_features * (p.rank + p.rows)
        self.notes.append("(x·Aᵀ)·Bᵀ is cheaper here" if self.low_rank_first else "x·(B·A)ᵀ is cheaper here")

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        y = linear(p.x, p.weight(index))
        if self.low_rank_first:
            return y.addmm_(p.x @ p.lora_a.t(), p.lora_b.t(), alpha=p.scaling)
        return y.addmm_(p.x, (p.lora_b @ p.lora_a).t(), alpha=p.scaling)


class WrongOrder(Variant):
    """x·(W + s·B·A)ᵀ: a full-size matrix is formed and thrown away in every call."""

    id = "wrong_order"

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        return linear(p.x, torch.addmm(p.weight(index), p.lora_b, p.lora_a, alpha=p.scaling))

    def work(self) -> Work:
        p = self.problem
        size = p.in_features * p.out_features
        return p.base_work() + Work(2 * p.rank * size, 2 * size * p.element_bytes)


class Dora(Variant):
    """DoRA: m·(W + s·B·A)/‖W + s·B·A‖ row by row. Source: Liu et al. 2024, arXiv:2402.09353, equation 5.

    As PEFT computes it: the norms in every call, since A and B train. Its answer differs from LoRA's on purpose; with
    m set to ‖W + s·B·A‖, as here, it is the same.
    """

    id = "dora"

    def prepare(self) -> None:
        self.magnitude = self._norms(0)

    def _norms(self, index: int) -> Tensor:
        p = self.problem
        return torch.addmm(p.weight(index), p.lora_b, p.lora_a, alpha=p.scaling).norm(dim=1)

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        y = linear(p.x, p.weight(index)).addmm_(linear(p.x, p.lora_a), p.lora_b.t(), alpha=p.scaling)
        return y.mul_(self.magnitude / self._norms(index))

    def work(self) -> Work:
        p = self.problem
        size = p.in_features * p.out_features
        return p.base_work() + p.adapter_work() + Work(2 * (p.rank + 1) * size, size * p.element_bytes)

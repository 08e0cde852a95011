"""LoRA written out with PyTorch's own operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul.factors import folded, transposed
from loralens.lab.matmul.problem import LeastWork
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


class WrongOrder(Variant):
    """x·(W + s·B·A)ᵀ: a full-size matrix is formed and thrown away in every call."""

    id = "wrong_order"

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        return linear(p.x, torch.addmm(p.weight(index), p.lora_b, p.lora_a, alpha=p.scaling))

    def work(self) -> LeastWork:
        p = self.problem
        size = p.in_features * p.out_features
        return p.base_work() + LeastWork(2 * p.rank * size, 2 * size * p.element_bytes)

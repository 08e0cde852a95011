"""The frozen layer alone, and what full-size updates cost."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul.problem import LeastWork, ProductTensors
from loralens.lab.matmul.variants.base import Variant, half_on_cpu


class Dense(Variant):
    """x·Wᵀ."""

    id = "dense"

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return half_on_cpu(problem)

    def __call__(self, index: int) -> Tensor:
        return linear(self.problem.x, self.problem.weight(index))

    def work(self) -> LeastWork:
        return self.problem.base_work()


class DenseAgain(Dense):
    """The same call, for the noise."""

    id = "dense_again"


class DenseForAdapters(Dense):
    """x·Wᵀ beside the batch forms."""

    id = "dense"
    mode = "adapters"


class DenseAgainForAdapters(Dense):
    """The same call, for the noise."""

    id = "dense_again"
    mode = "adapters"


class MergedWeight(Variant):
    """W + s·B·A, added once: the speed of dense, for one adapter at a time."""

    id = "merged"
    copies_of_weight = 1.0

    def prepare(self) -> None:
        p = self.problem
        merged = torch.addmm(p.weights[0], p.lora_b, p.lora_a, alpha=p.scaling)
        self.merged = [merged, *(merged.clone() for _ in range(p.copies - 1))]

    def __call__(self, index: int) -> Tensor:
        return linear(self.problem.x, self.merged[index % self.problem.copies])

    def work(self) -> LeastWork:
        return self.problem.base_work()

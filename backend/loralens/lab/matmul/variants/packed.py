"""A frozen base in oneDNN's layout, with and without LoRA."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul import packed
from loralens.lab.matmul.factors import folded, transposed
from loralens.lab.matmul.packed import PackedWeight
from loralens.lab.matmul.problem import Problem, Work
from loralens.lab.matmul.variants.base import Variant, half_on_cpu


class Packed(Variant):
    """Shared by the prepacked variants: one packed copy of W for each copy that the others rotate over."""

    copies_of_weight = 1.0
    hint = packed.DEFAULT_HINT

    @classmethod
    def why_not(cls, problem: Problem) -> str | None:
        return half_on_cpu(problem) or packed.why_not(problem.dtype, problem.device.kind)

    def prepare(self) -> None:
        self.lora_bt, self.left = folded(transposed(self.problem.lora_b), self.problem.scaling)
        self.packed = [PackedWeight(weight, self.hint) for weight in self.problem.weights]

    def base(self, index: int, add: Tensor | None = None) -> Tensor:
        """x·Wᵀ from the packed copy with that index."""
        return self.packed[index % len(self.packed)](self.problem.x, add=add)


class PackedDense(Packed):
    """The frozen layer, packed."""

    id = "packed_dense"

    def __call__(self, index: int) -> Tensor:
        return self.base(index)

    def work(self) -> Work:
        return self.problem.base_work()


class PackedDenseForAdapters(PackedDense):
    """The frozen layer, packed, beside the batch forms."""

    id = "packed_dense"
    mode = "adapters"


class PackedAddmm(Packed):
    """LoRA added in place after the packed base."""

    id = "packed_addmm"

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        return self.base(index).addmm_(linear(p.x, p.lora_a), self.lora_bt, alpha=self.left)


class PackedHint16(PackedAddmm):
    """The same on a layout chosen for 16 rows."""

    id = "packed_hint16"
    hint = 16


class PackedEpilogue(Packed):
    """LoRA first; the base's product adds it where it writes its output."""

    id = "packed_epilogue"

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        h = linear(p.x, p.lora_a)
        if self.left != 1.0:
            h.mul_(self.left)
        return self.base(index, add=h @ self.lora_bt)


class PackedMerged(Packed):
    """The merged weight, packed."""

    id = "packed_merged"

    def prepare(self) -> None:
        p = self.problem
        merged = torch.addmm(p.weights[0], p.lora_b, p.lora_a, alpha=p.scaling)
        self.packed = [PackedWeight(merged, self.hint) for _ in p.weights]

    def __call__(self, index: int) -> Tensor:
        return self.base(index)

    def work(self) -> Work:
        return self.problem.base_work()

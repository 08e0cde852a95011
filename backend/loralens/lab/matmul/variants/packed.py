"""A frozen base in oneDNN's layout, with and without LoRA."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul import packed
from loralens.lab.matmul.factors import folded, transposed, widened
from loralens.lab.matmul.problem import LeastWork, ProductTensors
from loralens.lab.matmul.variants.base import Variant, half_on_cpu


class Packed(Variant):
    """Shared by the prepacked variants: one packed copy of W for each copy that the others rotate over."""

    copies_of_weight = 1.0
    hint = packed.DEFAULT_HINT

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return half_on_cpu(problem) or packed.why_not(problem.dtype, problem.device.kind)

    def prepare(self) -> None:
        self.lora_bt, self.left = folded(transposed(self.problem.lora_b), self.problem.scaling)
        self.packed = self.packed_weights(self.hint)

    def base(self, index: int, add: Tensor | None = None) -> Tensor:
        """x·Wᵀ from the packed copy with that index."""
        return self.packed[index % len(self.packed)](self.problem.x, add=add)


class PackedDense(Packed):
    """The frozen layer, packed."""

    id = "packed_dense"

    def __call__(self, index: int) -> Tensor:
        return self.base(index)

    def work(self) -> LeastWork:
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


class PackedFloat32(Packed):
    """The adapter's part in float32, from copies of A and B, added in place after the packed base.

    For few rows: half-precision products of 8 columns take a slower path in the library than float32's (105 against
    142 µs for one row, 250 against 400 µs for 16, 4096 columns, AVX-512 without bfloat16 arithmetic), and the sum is
    rounded once. For many rows its float32 passes over x and y cost more than that.
    """

    id = "packed_float32"

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        if problem.dtype is torch.float32:
            return "the same as addmm after the packed base when W is float32"
        return super().why_not(problem)

    def prepare(self) -> None:
        p = self.problem
        self.wide_at, self.wide_bt = widened(p.lora_a, p.lora_b, p.scaling, p.x.device)
        self.packed = self.packed_weights(self.hint)

    def __call__(self, index: int) -> Tensor:
        return self.base(index).add_((self.problem.x.float() @ self.wide_at) @ self.wide_bt)


class PackedTouch(Packed):
    """The packed base, then A and B read once by two operations that compute nothing of use.

    What any way of adding an adapter apart pays at the least: its bytes out of memory, since the product has swept them
    from the caches, and the entry into one operation per factor.
    """

    id = "packed_touch"

    def prepare(self) -> None:
        super().prepare()
        self.factors = [_as_integers(self.problem.lora_a), _as_integers(self.lora_bt)]

    def __call__(self, index: int) -> Tensor:
        y = self.base(index)
        for factor in self.factors:
            factor.sum()
        return y

    def work(self) -> LeastWork:
        p = self.problem
        return p.base_work() + LeastWork(0, p.adapter_work().bytes)


def _as_integers(factor: Tensor) -> Tensor:
    """The same bytes as the widest integers that divide them: summing those is the fastest way to read a tensor."""
    size = factor.numel() * factor.element_size()
    widest = next(kind for kind in (torch.int64, torch.int32, torch.int16) if size % kind.itemsize == 0)
    return factor.reshape(-1).view(widest)

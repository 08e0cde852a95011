"""The split Triton kernel as a variant."""

from __future__ import annotations

import importlib.util

from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul.problem import ProductTensors
from loralens.lab.matmul.variants.base import Variant


class TritonSplit(Variant):
    """h = x·Aᵀ by the library; one kernel computes x·Wᵀ and adds s·h·Bᵀ in the accumulator."""

    id = "triton_split"
    warm = True

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        if problem.device.kind != "cuda":
            return "the Triton kernel needs a CUDA device"
        return None if importlib.util.find_spec("triton") else "Triton is not installed"

    def prepare(self) -> None:
        from triton.errors import TritonError

        from loralens.lab.matmul.kernels.split import split_linear

        self.kernel = split_linear
        try:
            self(0)
        except TritonError as error:  # too little shared memory, a tile that this GPU has no instruction for, …
            raise RuntimeError(f"Triton cannot build the kernel for this GPU: {error}") from None

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        return self.kernel(p.x, p.weight(index), linear(p.x, p.lora_a), p.lora_b, p.scaling)

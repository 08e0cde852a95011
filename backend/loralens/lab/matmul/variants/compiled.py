"""PEFT's form through torch.compile."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul.problem import ProductTensors
from loralens.lab.matmul.variants.base import Variant, half_on_cpu
from loralens.lab.matmul.variants.training import Training


def why_not(problem: ProductTensors) -> str | None:
    """TorchInductor needs a C++ compiler on CPUs and Triton on GPUs."""
    if sys.platform == "win32":
        return "torch.compile needs more than a plain Windows installation has"
    if problem.device.kind == "cpu" and not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        return "torch.compile needs a C++ compiler, and none is installed"
    if problem.device.kind == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch.compile needs Triton, which is not installed"
    return "torch.compile for Apple GPUs is a prototype" if problem.device.kind == "mps" else half_on_cpu(problem)


def product(x: Tensor, weight: Tensor, lora_a: Tensor, lora_b: Tensor, scaling: float) -> Tensor:
    """PEFT's form as one function."""
    return linear(x, weight) + linear(linear(x, lora_a), lora_b) * scaling


class Compiled(Variant):
    """Inference."""

    id = "compiled"
    warm = True
    setup_seconds = 30.0

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return why_not(problem)

    def prepare(self) -> None:
        torch._dynamo.reset()
        self.product = torch.compile(product, dynamic=False)

    def __call__(self, index: int) -> Tensor:
        p = self.problem
        result: Tensor = self.product(p.x, p.weight(index), p.lora_a, p.lora_b, p.scaling)
        return result


class CompiledTraining(Training):
    """Forward and backward."""

    id = "compiled"
    warm = True
    setup_seconds = 30.0

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return why_not(problem)

    def prepare(self) -> None:
        super().prepare()
        torch._dynamo.reset()
        self.product = torch.compile(product, dynamic=False)

    def forward(self, index: int) -> Tensor:
        p = self.problem
        result: Tensor = self.product(self.x, p.weight(index), self.a, self.b, p.scaling)
        return result

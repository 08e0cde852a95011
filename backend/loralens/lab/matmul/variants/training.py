"""Forward and backward: W frozen, full fine-tuning, and LoRA with autograd's own backward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from loralens.lab.matmul.problem import LeastWork, ProductTensors
from loralens.lab.matmul.variants.base import Variant, half_on_cpu


class Training(Variant):
    """Shared: one output, then its gradients with respect to `wanted`."""

    mode = "training"

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return half_on_cpu(problem)

    def prepare(self) -> None:
        p = self.problem
        self.x = p.x.detach().requires_grad_()
        self.a = p.lora_a.detach().clone().requires_grad_()
        self.b = p.lora_b.detach().clone().requires_grad_()

    def forward(self, index: int) -> Tensor:
        """The output with its graph."""
        raise NotImplementedError

    def wanted(self, index: int) -> Sequence[Tensor]:
        """What gets a gradient."""
        return [self.x, self.a, self.b]

    def parameters(self) -> list[Tensor]:
        """Tensors that live anyway."""
        return [self.a, self.b]

    def __call__(self, index: int) -> Tensor:
        y = self.forward(index)
        self.found = torch.autograd.grad(y, list(self.wanted(index)), self.problem.grad)
        return y.detach()

    def gradients(self) -> dict[str, Tensor]:
        return dict(zip(("dx", "da", "db"), self.found, strict=False))

    def work(self) -> LeastWork:
        # dx repeats the base product with Wᵀ; LoRA's backward is twice its forward.
        p = self.problem
        base, adapter = p.base_work(), p.adapter_work()
        return LeastWork(2 * base.flops + 3 * adapter.flops, 2 * base.bytes + 3 * adapter.bytes)


class Frozen(Training):
    """W frozen, dx only."""

    id = "dense"

    def forward(self, index: int) -> Tensor:
        return linear(self.x, self.problem.weight(index))

    def wanted(self, index: int) -> Sequence[Tensor]:
        return [self.x]

    def work(self) -> LeastWork:
        base = self.problem.base_work()
        return base + base


class FrozenAgain(Frozen):
    """The same call, for the noise."""

    id = "dense_again"


class FullGradient(Frozen):
    """dx and dW."""

    id = "full_gradient"
    copies_of_weight = 0.5

    def prepare(self) -> None:
        super().prepare()
        self.trained = [weight.detach().requires_grad_() for weight in self.problem.weights]

    def forward(self, index: int) -> Tensor:
        return linear(self.x, self.trained[index % self.problem.copies])

    def wanted(self, index: int) -> Sequence[Tensor]:
        return [self.x, self.trained[index % self.problem.copies]]

    def parameters(self) -> list[Tensor]:
        return self.trained

    def work(self) -> LeastWork:
        base = self.problem.base_work()
        return base + base + base


class EagerTraining(Training):
    """PEFT's form under autograd."""

    id = "eager"

    def forward(self, index: int) -> Tensor:
        p = self.problem
        return linear(self.x, p.weight(index)) + linear(linear(self.x, self.a), self.b) * p.scaling

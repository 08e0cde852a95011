"""This package's layer as a variant, in the form that the cost model picks."""

from __future__ import annotations

import torch
from torch import Tensor

from loralens.lab.matmul import cost, packed
from loralens.lab.matmul.layer import Join, LoraLinear
from loralens.lab.matmul.problem import LeastWork, ProductTensors
from loralens.lab.matmul.table import Rows
from loralens.lab.matmul.variants.base import Variant, half_on_cpu

FORMS: dict[str, Join] = {
    "addmm": "after", "packed_addmm": "after", "packed_epilogue": "epilogue", "packed_float32": "float32",
    "stacked_mask": "after", "packed_stacked": "after", "packed_stacked_epilogue": "epilogue",
}  # fmt: skip
"""The forms that the layer has, and how each joins base and adapter."""


class Own(Variant):
    """LoraLinear."""

    id = "own"
    copies_of_weight = 1.0

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return half_on_cpu(problem)

    def prepare(self) -> None:
        p = self.problem
        form = cost.choose(
            self.mode, kind=p.device.kind, dtype=p.dtype, rows=p.rows, in_features=p.in_features,
            out_features=p.out_features, rank=p.rank, adapters=p.request.adapters, available=set(FORMS),
        )  # fmt: skip
        pack = form.startswith("packed") and packed.why_not(p.dtype, p.device.kind) is None
        hint = packed.hint_for(p.dtype, p.rows)
        packings = self.packed_weights(hint) if pack else [None] * p.copies
        self.layers = []
        for weight, packing in zip(p.weights, packings, strict=True):
            layer = LoraLinear(weight, packed=packing, join=FORMS[form])
            self.fill(layer)
            self.layers.append(layer)
        self.notes.append(f"form: {form}" + (f", packed for {hint} rows" if pack else ""))

    def fill(self, layer: LoraLinear) -> None:
        """Load the adapters of the point."""
        layer.set_adapter("one", self.problem.lora_a, self.problem.lora_b, self.problem.scaling)
        layer.table.use("one")

    def __call__(self, index: int) -> Tensor:
        result: Tensor = self.layers[index % self.problem.copies](self.problem.x)
        return result


class OwnAdapters(Own):
    """LoraLinear with a mixed batch."""

    id = "own"
    mode = "adapters"

    def fill(self, layer: LoraLinear) -> None:
        p = self.problem
        for number in range(p.request.adapters):
            layer.set_adapter(str(number), p.all_a[number], p.all_b[number], p.scaling)
        self.rows = Rows(tuple(p.ids.tolist()))

    def __call__(self, index: int) -> Tensor:
        result: Tensor = self.layers[index % self.problem.copies](self.problem.x, self.rows)
        return result

    def work(self) -> LeastWork:
        return self.problem.base_work() + self.problem.adapter_work(self.problem.request.adapters)


class OwnTraining(Own):
    """LoraLinear, forward and backward."""

    id = "own"
    mode = "training"

    def prepare(self) -> None:
        p = self.problem
        self.layers = []
        self.x = p.x.detach().requires_grad_()
        for weight in p.weights:
            layer = LoraLinear(weight)
            self.fill(layer)
            layer.trainable("one")
            self.layers.append(layer)

    def parameters(self) -> list[Tensor]:
        """Tensors that live anyway."""
        return [tensor for layer in self.layers for tensor in layer.trainable("one")]

    def forward(self, index: int) -> Tensor:
        """The output with its graph."""
        result: Tensor = self.layers[index % self.problem.copies](self.x)
        return result

    def __call__(self, index: int) -> Tensor:
        y = self.forward(index)
        factors = self.layers[index % self.problem.copies].trainable("one")
        self.found = torch.autograd.grad(y, [self.x, *factors], self.problem.grad)
        return y.detach()

    def gradients(self) -> dict[str, Tensor]:
        return {"dx": self.found[0], "da": self.found[1], "db": self.found[2]}

    def work(self) -> LeastWork:
        base, adapter = self.problem.base_work(), self.problem.adapter_work()
        return LeastWork(2 * base.flops + 3 * adapter.flops, 2 * base.bytes + 3 * adapter.bytes)

"""The layers that people run next to ours: Hugging Face PEFT, as installed."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from loralens.extras import how_to_install
from loralens.lab.matmul.problem import ProductTensors
from loralens.lab.matmul.variants.base import Variant, half_on_cpu
from loralens.lab.matmul.variants.training import Training

IMPORT_SECONDS = 8.0


def why_not(problem: ProductTensors) -> str | None:
    """PEFT is optional."""
    if importlib.util.find_spec("peft") is None:
        return f"PEFT is not installed ({how_to_install('trace')})"
    return half_on_cpu(problem)


class _Host(nn.Module):
    """The smallest model that PEFT accepts: one linear layer."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.layer.weight = nn.Parameter(weight, requires_grad=False)


def peft_layers(problem: ProductTensors, *, autocast: bool, adapters: list[tuple[Tensor, Tensor]]) -> list[Any]:
    """One PEFT linear layer per copy of W, all with the same adapters, named by their number."""
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype

    layers = []
    for weight in problem.weights:
        model = _Host(weight)
        config = LoraConfig(
            r=problem.rank, lora_alpha=problem.request.alpha, target_modules=["layer"], init_lora_weights=False
        )
        for number, (lora_a, lora_b) in enumerate(adapters):
            name = str(number)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second adapter is meant
                inject_adapter_in_model(config, model, adapter_name=name)
            with torch.no_grad():
                layer: Any = model.layer
                layer.lora_A[name].weight.data = lora_a.clone()
                layer.lora_B[name].weight.data = lora_b.clone()
            # get_peft_model does this; injecting into a bare model leaves it to the caller.
            cast_adapter_dtype(model, adapter_name=name, autocast_adapter_dtype=autocast)
        layer.set_adapter("0")
        model.eval()
        layers.append(layer)
    return layers


class Peft(Variant):
    """peft.tuners.lora.Linear."""

    id = "peft"
    setup_seconds = IMPORT_SECONDS
    autocast: ClassVar[bool] = True

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return why_not(problem)

    def prepare(self) -> None:
        p = self.problem
        self.layers = peft_layers(p, autocast=self.autocast, adapters=[(p.lora_a, p.lora_b)])

    def __call__(self, index: int) -> Tensor:
        result: Tensor = self.layers[index % self.problem.copies](self.problem.x)
        return result


class PeftSameDtype(Peft):
    """The adapter in W's dtype."""

    id = "peft_same_dtype"
    autocast = False

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        if problem.dtype is torch.float32:
            return "the same as PEFT's default when W is float32"
        return why_not(problem)


class PeftTraining(Training):
    """Forward and backward."""

    id = "peft"
    setup_seconds = IMPORT_SECONDS

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return why_not(problem)

    def prepare(self) -> None:
        super().prepare()
        p = self.problem
        self.layers = peft_layers(p, autocast=True, adapters=[(p.lora_a, p.lora_b)])

    def forward(self, index: int) -> Tensor:
        result: Tensor = self.layers[index % self.problem.copies](self.x)
        return result

    def wanted(self, index: int) -> list[Tensor]:
        layer = self.layers[index % self.problem.copies]
        return [self.x, layer.lora_A["0"].weight, layer.lora_B["0"].weight]

    def parameters(self) -> list[Tensor]:
        return [tensor for layer in self.layers for tensor in layer.parameters()]


class PeftMixed(Variant):
    """PEFT's mixed batch: `adapter_names`, one per row."""

    id = "peft_mixed"
    setup_seconds = IMPORT_SECONDS
    mode = "adapters"

    @classmethod
    def why_not(cls, problem: ProductTensors) -> str | None:
        return why_not(problem)

    def prepare(self) -> None:
        p = self.problem
        adapters = list(zip(p.all_a.unbind(), p.all_b.unbind(), strict=True))
        self.layers = peft_layers(p, autocast=True, adapters=adapters)
        self.names = [str(number) for number in p.ids.tolist()]

    def __call__(self, index: int) -> Tensor:
        result: Tensor = self.layers[index % self.problem.copies](self.problem.x, adapter_names=self.names)
        return result

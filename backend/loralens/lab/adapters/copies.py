"""Adapters that no pair of factors says whole, as weights of their own: DoRA, and LoRA whose lora_B has a bias.

Source: huggingface/peft 0.21.2 tuners/lora/dora.py, DoraLinearLayer.forward (W' = m / ||W + s·BA|| · (W + s·BA), norms of
rows); tuners/lora/layer.py, Linear.forward (the bias of lora_B is scaled with its product).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.matmul.layer import LoraLinear
from loralens.lab.matmul.table import Selection


def needs_copies(adapter: Adapter) -> bool:
    """Whether switching to it takes weights of its own, as many as it adapts."""
    return adapter.config.use_dora or adapter.config.lora_bias


@torch.no_grad()
def copied(name: str, adapter: Adapter, layers: Mapping[str, LoraLinear]) -> Selection:
    """A selection with the adapter's own weights and biases; the base is read, never written.

    Raises: `InvalidInput` over a base whose weights are packed.
    """
    weights: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    for module, factors in adapter.factors.items():
        weight = layers[module].weight
        if not weight.is_floating_point():
            raise InvalidInput("DoRA and lora_bias need a base whose weights are not packed", field="adapter")
        wide = weight.float() + factors.scaling * factors.lora_b.float() @ factors.lora_a.float()
        if factors.magnitude is not None:
            wide *= (factors.magnitude.float() / torch.linalg.vector_norm(wide, dim=1))[:, None]
        weights[module] = wide.to(weight.dtype)
        if factors.bias is not None:
            own = layers[module].bias
            added = factors.scaling * factors.bias.float() + (0 if own is None else own.float())
            biases[module] = added.to(weight.dtype)
    return Selection(name, "merge", weights=weights, biases=biases)

"""From a model on the meta device to one with real tensors: random weights, packed ones really packed."""

from __future__ import annotations

from typing import Any

import torch

from loralens.core.question.recipe import Recipe
from loralens.lab.trace.quantize import is_packed

SPREAD = 0.02  # standard deviation of the random weights (the usual initializer_range); memory does not depend on it


def materialize(network: Any, device: torch.device, recipe: Recipe) -> Any:
    """Give every parameter and buffer real memory on `device`; packed weights are packed from random ones.

    Tied parameters stay tied. The model is changed and returned.
    """
    made: dict[int, torch.nn.Parameter] = {}
    torch.manual_seed(0)
    for module in network.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None:
                continue
            if id(parameter) not in made:
                made[id(parameter)] = _parameter(parameter, device, recipe)
            module._parameters[name] = made[id(parameter)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype, device=device)
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor) and value.device.type == "meta":
                setattr(module, name, torch.zeros(value.shape, dtype=value.dtype, device=device))
    return network


def _parameter(parameter: Any, device: torch.device, recipe: Recipe) -> torch.nn.Parameter:
    dtype = getattr(torch, recipe.weights_dtype) if is_packed(parameter) else parameter.dtype
    values = torch.empty(parameter.shape, dtype=dtype, device="cpu" if is_packed(parameter) else device)
    values.normal_(std=SPREAD)
    if not is_packed(parameter):
        return torch.nn.Parameter(values, requires_grad=parameter.requires_grad)
    import bitsandbytes as bnb

    if type(parameter).__name__ == "Int8Params":
        return bnb.nn.Int8Params(values, requires_grad=False, has_fp16_weights=False).to(device)
    packed = bnb.nn.Params4bit(
        values,
        requires_grad=False,
        compress_statistics=parameter.compress_statistics,
        quant_type=parameter.quant_type,
        blocksize=parameter.blocksize,
        quant_storage=parameter.quant_storage,
    )
    return packed.to(device)

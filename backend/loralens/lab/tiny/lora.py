"""LoRA that trains, on any module with `nn.Linear` layers; what is trained is read under PEFT's key names.

    adapted = inject_lora(model, rank=8, alpha=16, targets=("q_proj", "v_proj"), seed=0)   # in place; freezes the rest
    state = adapter_state(model)                     # {"base_model.model.<path>.lora_A.weight": tensor, ...}
    base_hash(model)                                 # digest of the frozen weights' bytes

The layer is `lab.matmul.layer.LoraLinear`, the one that switches, mixes and serves; here one adapter trains in it, made
of PEFT's operations (`join="apart"`): what such a step holds is then what the calculator says of PEFT.

lora_a (rank, in_features), lora_b (out_features, rank), scaling = alpha / rank; B starts at zero, so the adapted model
starts as the base. Rank 0 is allowed and is the base model itself.

Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; initialisation of A (Kaiming uniform with a = sqrt 5) as PEFT's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from loralens.core.errors import InvalidInput
from loralens.lab.factors import factor_names
from loralens.lab.matmul.layer import LoraLinear
from loralens.lab.matmul.table import AdapterTable
from loralens.lab.tensors import hash_tensors

ADAPTER = "default"
"""What the adapter that trains is called in the layers' table."""


def inject_lora(
    model: nn.Module, *, rank: int, alpha: float | None = None, targets: Sequence[str], seed: int = 0
) -> dict[str, LoraLinear]:
    """Freeze `model` and wrap each linear layer whose last name is in `targets`; in place.

    Args: alpha defaults to 2 * rank (scaling 2); seed draws the A factors, whatever else was drawn before.
    Returns: the new layers by path.
    Raises: InvalidInput when the rank is negative or over the smallest layer's full rank, or a target matches nothing.
    """
    found = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path.rpartition(".")[2] in targets
    }
    missing = sorted(set(targets) - {path.rpartition(".")[2] for path in found})
    if missing or not found:
        raise InvalidInput(
            f"no linear layer is named {', '.join(missing) or 'so'}", field="target_modules", hint="try q_proj,v_proj"
        )
    full_rank = min(min(m.in_features, m.out_features) for m in found.values())
    if not 0 <= rank <= full_rank:
        raise InvalidInput(f"rank must be between 0 and {full_rank} for these layers, got {rank}", field="rank")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    table = AdapterTable()
    scaling = (2.0 if alpha is None else alpha / rank) if rank else 0.0
    adapted: dict[str, LoraLinear] = {}
    for path, linear in found.items():
        layer = LoraLinear.over(linear, table=table, name=path, join="apart")
        layer.set_adapter(ADAPTER, *_start(linear, rank, generator), scaling)
        layer.trainable(ADAPTER)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, layer)
        adapted[path] = layer
    table.use(ADAPTER)
    return adapted


def _start(linear: nn.Linear, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Where training starts: A drawn, B zero."""
    bound = 1.0 / math.sqrt(linear.in_features)  # Kaiming uniform with a = sqrt(5) comes down to this
    lora_a = (torch.rand(rank, linear.in_features, generator=generator) * 2 - 1) * bound
    return lora_a, torch.zeros(linear.out_features, rank)


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The adapted layers by path, as PEFT counts paths (without `base_layer`)."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoraLinear)}


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's tensors under the names of PEFT's adapter_model.safetensors; copies, detached, on the CPU."""
    state: dict[str, Tensor] = {}
    for path, layer in lora_layers(model).items():
        for name, factor in zip(factor_names(path), layer.trainable(ADAPTER), strict=True):
            state[name] = factor.detach().cpu().clone()
    return state


def base_hash(model: nn.Module) -> str:
    """The digest of the base weights; adapters are left out, so it is that of the bare base."""
    return hash_tensors(base_state(model))


def base_state(model: nn.Module) -> dict[str, Tensor]:
    """The base model's state under its own names, with or without adapters around it."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith((".lora_a", ".lora_b"))
    }

"""AdaLoRA read as the LoRA that computes the same: its singular values (lora_E) are multiplied into lora_A.

The update is lora_alpha / (init_r + 1e-5) · B·diag(E)·A whatever rank pruning has left, since PEFT keeps the scaling of the
rank that it began with.
Source: huggingface/peft 0.21.2 tuners/adalora/layer.py, SVDLinear.forward and update_layer (ranknum); tuners/adalora/model.py,
resize_modules_by_rank_pattern; Zhang et al. 2023, arXiv:2303.10512, equation 3.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch

from loralens.core.errors import InvalidInput
from loralens.core.jsontext import from_json
from loralens.core.question.kinds import Whole, entry
from loralens.lab.adapters.adapter import Adapter, assemble
from loralens.lab.adapters.config import MAX_CONFIG_BYTES, MAX_RANK, config_from_mapping
from loralens.lab.factors import PREFIX, factor_names

PEFT_TYPE: Final = "ADALORA"
OF_ITS_SCHEDULE: Final = frozenset(
    [
        "target_r",
        "init_r",
        "tinit",
        "tfinal",
        "deltaT",
        "beta1",
        "beta2",
        "orth_reg_weight",
        "total_step",
        "rank_pattern",
    ]
)
"""How the ranks came about; of no meaning for factors of the ranks that they have."""
_FIELD: Final = "adapter_model.safetensors"
_ROLE: Final = re.compile(r"(?P<module>.+)\.(?P<role>lora_[ABE])")
_BESIDES: Final = ("use_rslora", "rank_pattern", "alpha_pattern")
"""What AdaLoRA's layers do not read."""


def adalora_config(raw: bytes) -> dict[str, object] | None:
    """The config, if it is AdaLoRA's."""
    if PEFT_TYPE.encode() not in raw or len(raw) > MAX_CONFIG_BYTES:
        return None
    try:
        given = from_json(raw)
    except (ValueError, RecursionError):
        return None  # the strict reader says what is wrong
    return given if isinstance(given, dict) and given.get("peft_type") == PEFT_TYPE else None


def as_lora(given: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Adapter:
    """The LoRA of a decoded AdaLoRA config and its tensors; factors are in float32.

    Raises: `InvalidInput` for what is not whole, and for what `assemble` refuses.
    """
    begun = entry(given, "init_r", Whole(1, MAX_RANK), 12, where="adapter_config")
    plain = {key: value for key, value in given.items() if key not in OF_ITS_SCHEDULE | frozenset(_BESIDES)}
    config = config_from_mapping(plain | {"peft_type": "LORA", "r": begun, "init_lora_weights": True})
    scaling = config.alpha / (begun + 1e-5)
    roles: dict[str, dict[str, torch.Tensor]] = {}
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        match = _ROLE.fullmatch(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
        if match is None:
            found[name] = tensor
        else:
            roles.setdefault(match["module"], {})[match["role"]] = tensor
    ranks = {}
    for module, own in roles.items():
        lora_a, lora_b = _product(module, own, scaling)
        if lora_a.shape[0]:
            ranks[module] = lora_a.shape[0]
            found |= dict(zip(factor_names(module), (lora_a, lora_b), strict=True))
    if not ranks:
        raise InvalidInput("the file contains no AdaLoRA factors, or every rank is pruned to zero", field=_FIELD)
    usual = Counter(ranks.values()).most_common(1)[0][0]
    odd = tuple((module, rank) for module, rank in sorted(ranks.items()) if rank != usual)
    lora = replace(
        config,
        rank=usual,
        alpha=float(usual),
        target_modules=tuple(sorted(ranks)),
        exclude_modules=(),
        rank_pattern=odd,
        alpha_pattern=tuple((module, float(rank)) for module, rank in odd),
    )
    numbers = sum(tensor.numel() for own in roles.values() for tensor in own.values())
    note = (
        f"It is AdaLoRA ({numbers:,} numbers in its factors), read as the LoRA that computes the same: its singular values are "
        "multiplied into lora_A. What is written from it is LoRA."
    )
    return replace(assemble(lora, found), notes=(note,))


def _product(module: str, own: Mapping[str, torch.Tensor], scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    for role in ("lora_A", "lora_B", "lora_E"):
        if role not in own:
            raise InvalidInput(f"{module}: {role} is missing", field=_FIELD)
    a, b, e = own["lora_A"], own["lora_B"], own["lora_E"]
    if a.dim() != 2 or b.dim() != 2 or tuple(e.shape) != (a.shape[0], 1) or b.shape[1] != a.shape[0]:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in (a, b, e))
        raise InvalidInput(
            f"{module}: lora_A, lora_B and lora_E have shapes {shapes}, which are not of one rank", field=_FIELD
        )
    return (a.double() * e.double() * scaling).float(), b.float()

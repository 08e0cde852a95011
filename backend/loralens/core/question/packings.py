"""How a frozen base can be packed: the words, other programs' names for them, and why others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question.kinds import Choice, Place

QUANTIZATIONS: Final = ("nf4", "fp4", "int8", "gptq4", "gptq8", "awq4", "hqq4", "fp8")
BY_GROUPS: Final = ("gptq4", "gptq8", "awq4", "hqq4")
"""Packed by columns of `group_size`; PEFT's k-bit preparation leaves what is beside them as it is."""
ALIASES: Final = {"gptq": "gptq4", "awq": "awq4", "hqq": "hqq4", "bnb4": "nf4", "bnb8": "int8"}
REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    "mxfp4": (
        "MXFP4's kernels have no backward pass: transformers unpacks such a checkpoint to bfloat16 for training",
        "leave quantization out for that, or try quantization=nf4",
    ),
    "nvfp4": ("an NVFP4 base is not modelled", "try quantization=nf4, which takes as many bits"),
    "int4": ("torchao's int4 layout follows its kernel, and is not modelled", "try quantization=nf4 or hqq4"),
    **dict.fromkeys(
        ("aqlm", "eetq", "quanto", "vptq", "spqr", "bitnet", "higgs", "compressed-tensors"),
        ("this packing is not modelled", "try quantization=nf4, int8, gptq4, awq4 or hqq4"),
    ),
}


@dataclass(frozen=True)
class PackingName(Choice):
    """The name of a packing."""

    def read(self, value: Any, at: Place) -> Any:
        """The word behind another program's name.

        Raises:
            InvalidInput: it is not known, or known and not modelled, with the reason.
        """
        named = value.lower() if isinstance(value, str) else ""
        if named in REFUSED:
            why, hint = REFUSED[named]
            raise InvalidInput(f"{at.path} {named}: {why}", field=at.path, hint=hint)
        return super().read(ALIASES.get(named, value), at)


def said_by(config: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """The packing that a config.json's `quantization_config` names, and what is to be said of it."""
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return None, ()
    method = found.get("quant_method")
    kind = {"gptq": f"gptq{found.get('bits', 4)}", "awq": f"awq{found.get('bits', 4)}", "hqq": "hqq4"}.get(str(method))
    if method == "bitsandbytes":
        four = found.get("bnb_4bit_quant_type")
        kind = str(four or "nf4") if found.get("load_in_4bit") else "int8"
    if kind in QUANTIZATIONS:
        return kind, (f"quantization_config: the weights are packed, quantization={kind} unless said",)
    name = method if isinstance(method, str) and len(method) <= 40 else "unnamed"
    return None, (f"quantization_config {name}: counted for weights that are unpacked when they are loaded",)

"""Number formats and their sizes.

Source of the sizes: `torch.dtype.itemsize`; nf4 and fp4 are packed two to a byte (bitsandbytes `Params4bit`).
"""

from __future__ import annotations

from typing import Final

ITEM_BYTES: Final[dict[str, int]] = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8_e4m3": 1,
    "int64": 8,
    "int32": 4,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}

DTYPES: Final = ("float32", "bfloat16", "float16")
"""How weights may be held."""

SIXTEEN_BIT: Final = frozenset({"bfloat16", "float16"})


def promote(first: str, second: str) -> str:
    """Dtype of `first + second` for two floating-point tensors with at least one dimension.

    Source: torch type promotion (`torch.result_type`): equal stays, bfloat16 with float16 and anything with float32
    become float32.

    >>> promote("bfloat16", "float32")
    'float32'
    """
    return first if first == second else "float32"

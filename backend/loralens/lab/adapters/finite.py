"""Whether numbers are finite, seen from their bits: two integer maxima over a whole file instead of a look at each tensor.

A floating-point number is infinite or NaN where all bits of its exponent are 1. Read as an integer, such a number is at
least as large as infinity's pattern: among signed integers if its sign is plus, among unsigned ones if it is minus.
Source: IEEE 754-2019, section 3.4 (interchange formats); bfloat16 is the upper half of binary32.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Number format of safetensors to: signed and unsigned integers of its width, and the bits of +infinity.
_BITS: Final[dict[str, tuple[Any, Any, int]]] = {
    "F32": (np.int32, np.uint32, 0x7F80_0000),
    "F16": (np.int16, np.uint16, 0x7C00),
    "BF16": (np.int16, np.uint16, 0x7F80),
    "F64": (np.int64, np.uint64, 0x7FF0_0000_0000_0000),
}


CHECKED: Final = frozenset(_BITS)
"""Number formats that have infinities."""


def all_finite(data: NDArray[np.uint8], dtype: str) -> bool:
    """Whether no number of a run of bytes is infinite or NaN.

    Args:
        data: whole numbers of the format, one after the other.
        dtype: F64, F32, F16 or BF16.

    >>> all_finite(np.array([1.0, float("inf")], dtype=np.float32).view(np.uint8), "F32")
    False
    """
    signed, unsigned, infinity = _BITS[dtype]
    minus = infinity | 1 << (8 * np.dtype(signed).itemsize - 1)
    return bool(data.view(signed).max(initial=0) < infinity and data.view(unsigned).max(initial=0) < minus)

"""Large memory pages for a large weight that is read from end to end in every call.

With pages of 4 KiB, reading 32 MiB looks up 8192 addresses; with 2 MiB, 16. On a virtual machine each miss walks two
page tables. Source: madvise(2): MADV_HUGEPAGE, and MADV_COLLAPSE (Linux 6.1) which does it at once.
Measured on Zen 4 under KVM: a prepacked bfloat16 product of one row took 2.2–2.3 ms in place of 2.4–2.8 ms.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

HUGE_BYTES = 2 * 2**20
_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25


@cache
def _madvise() -> Any:
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        function.restype = ctypes.c_int
    return function


def use_huge_pages(address: int, size_bytes: int) -> bool:
    """Ask for huge pages under a buffer that has been written; whether the system agreed. Contents stay as they are."""
    madvise = _madvise()
    begin = -(-address // HUGE_BYTES) * HUGE_BYTES
    end = (address + size_bytes) // HUGE_BYTES * HUGE_BYTES
    if madvise is None or end <= begin:
        return False
    return madvise(begin, end - begin, _MADV_HUGEPAGE) == 0 and madvise(begin, end - begin, _MADV_COLLAPSE) == 0

"""What PyTorch's out-of-memory message says, in numbers.

**Source:** torch 2.13 c10/cuda/CUDACachingAllocator.cpp (`CUDA out of memory. Tried to allocate …`), and the forms of torch 1.x
and of ROCm, which name the same figures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from loralens.core.errors import InputTooLarge, InvalidInput

MAX_TEXT: Final = 262_144
UNITS: Final = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 2**10, "MB": 2**20, "GB": 2**30}
_SIZE: Final = r"(\d{1,12}(?:\.\d{1,6})?)\s?(bytes|[KMG]i?B)"
_TRIED: Final = re.compile(rf"Tried to allocate {_SIZE}")
_FIGURES: Final = {
    "capacity_bytes": (rf"total capacity of {_SIZE}", rf"{_SIZE} total capacity"),
    "free_bytes": (rf"of which {_SIZE} is free", rf"{_SIZE} free"),
    "allocated_bytes": (rf"memory {_SIZE} is allocated by PyTorch", rf"{_SIZE} already allocated"),
    "unallocated_bytes": (rf"and {_SIZE} is reserved by PyTorch but unallocated",),
    "reserved_bytes": (rf"{_SIZE} reserved in total by PyTorch",),
    "process_bytes": (rf"this process has {_SIZE} memory in use",),
}


@dataclass(frozen=True, slots=True)
class Tried:
    """The request that failed: what is printed, and between which sizes it may lie."""

    bytes: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class OutOfMemoryText:
    """The figures of one message; None for what it does not say."""

    tried: Tried
    capacity_bytes: int | None = None
    free_bytes: int | None = None
    allocated_bytes: int | None = None
    unallocated_bytes: int | None = None
    reserved_bytes: int | None = None
    process_bytes: int | None = None

    @property
    def cached_bytes(self) -> int | None:
        """Reserved by PyTorch and not allocated: what fragmentation keeps."""
        if self.unallocated_bytes is not None:
            return self.unallocated_bytes
        if self.reserved_bytes is None or self.allocated_bytes is None:
            return None
        return max(0, self.reserved_bytes - self.allocated_bytes)


def read_message(text: object) -> OutOfMemoryText:
    """The last out-of-memory message of a log.

    Raises:
        InvalidInput: there is none.
        InputTooLarge: more text than a log's end has.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(
            "text must hold an out-of-memory message", field="text", hint="paste the error with its figures"
        )
    if len(text) > MAX_TEXT:
        raise InputTooLarge(
            f"the text has {len(text):,} characters, allowed are {MAX_TEXT:,}",
            field="text",
            hint="paste the end of the log",
        )
    text = " ".join(text.split())
    found = list(_TRIED.finditer(text))
    if not found:
        raise InvalidInput(
            "no out-of-memory message of PyTorch is in this text",
            field="text",
            hint='it says "CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of …"',
        )
    message = text[found[-1].start() : found[-1].start() + 2_000]
    figures = {
        name: next((_bytes(match[1], match[2]) for pattern in patterns if (match := re.search(pattern, message))), None)
        for name, patterns in _FIGURES.items()
    }
    return OutOfMemoryText(_tried(found[-1]), **figures)


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * UNITS[unit])


def _tried(match: re.Match[str]) -> Tried:
    """A printed size stands for every size that rounds to it."""
    unit = UNITS[match[2]]
    decimals = len(match[1].partition(".")[2])
    half = unit / 10**decimals / 2
    size = float(match[1]) * unit
    return Tried(round(size), int(size - half) - 1, int(size + half) + 1)

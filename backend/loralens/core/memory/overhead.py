"""Above the allocator's figure: what the caching allocator reserves, and what the device shows.

Allocated is exact; these two depend on history and driver, so each is a band. All figures here are assumptions until
measured on the card in question, and are listed as such in every answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 2**20
SEGMENT: Final = 2 * MIB

# assumption: share that a simulated caching allocator held above the peak, median and largest over traced steps
RESERVED_TYPICAL: Final = 0.03
RESERVED_HIGH: Final = 0.20
# assumption: CUDA context and loaded libraries of one process on recent cards
CONTEXT_LOW: Final = 400 * MIB
CONTEXT_TYPICAL: Final = 500 * MIB
CONTEXT_HIGH: Final = 600 * MIB
# cuBLAS workspaces, allocated inside torch's pool: two of 8.125 MiB (seen on A100; 32 MiB a handle on Hopper)
WORKSPACES: Final = int(16.25 * MIB)


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes that the allocator reserves and the device shows: low, typical, high."""

    reserved: tuple[int, int, int]
    device: tuple[int, int, int]


def overhead(allocated_bytes: int) -> Overhead:
    """The bands above an allocated peak."""
    base = allocated_bytes + WORKSPACES
    reserved = tuple(_segments(base * (100 + percent) // 100) for percent in (0, int(100 * RESERVED_TYPICAL), int(100 * RESERVED_HIGH)))
    contexts = (CONTEXT_LOW, CONTEXT_TYPICAL, CONTEXT_HIGH)
    device = tuple(held + context for held, context in zip(reserved, contexts, strict=True))
    return Overhead(reserved, device)  # type: ignore[arg-type]


def _segments(size: int) -> int:
    return -(-size // SEGMENT) * SEGMENT


ASSUMPTIONS: Final = (
    "reserved: 0 to 20 % above allocated, typically 3 % (assumption, from simulated allocators); "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True narrows it",
    "device: reserved plus 400 to 600 MiB of CUDA context (assumption)",
    "cuBLAS workspaces: 16.25 MiB (as on an A100)",
)

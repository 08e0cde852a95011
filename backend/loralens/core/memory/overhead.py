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
# cuBLAS's workspace, one per handle (forward thread, backward thread), allocated inside torch's pool
# source: torch aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize: 32 MiB on Hopper, else 4096 KiB x 2 + 16 KiB x 8
WORKSPACE: Final = (4096 * 2 + 16 * 8) * 1024
WORKSPACE_HOPPER: Final = 32 * MIB
HANDLES: Final = 2
HOPPER: Final = ("h100", "h200", "h800", "h20", "gh200")


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes that the allocator reserves and the device shows: low, typical, high."""

    reserved: tuple[int, int, int]
    device: tuple[int, int, int]


def workspace_bytes(gpu: str = "") -> int:
    """cuBLAS workspaces of a training process on a card; part of what `max_memory_allocated` reports there."""
    hopper = any(name in gpu.lower() for name in HOPPER)
    return HANDLES * (WORKSPACE_HOPPER if hopper else WORKSPACE)


def overhead(allocated_bytes: int, gpu: str = "") -> Overhead:
    """The bands above an allocated peak."""
    base = allocated_bytes + workspace_bytes(gpu)
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
    "allocated leaves out cuBLAS's workspaces, which torch counts too: 16.25 MiB, 64 MiB on Hopper",
)

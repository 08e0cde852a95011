"""Above the allocator's figure: what the caching allocator reserves, what the device shows, and what a card must have.

Allocated is exact. Reserved and device depend on history (varying lengths, the load phase, blocks that wait to be
reused), so each is a band, taken from what published runs showed above our allocated figure for the same runs: an
in-sample summary, not a forecast. docs/accuracy.md prints how many of those rows each band holds. What a card must have is less than what a
monitor shows, because the allocator returns cached blocks before it fails; only what it cannot return counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from loralens.core.recipe import Recipe

MIB: Final = 2**20
SEGMENT: Final = 2 * MIB

# percent of the allocated peak that is reserved: low, typical, high. Source: residuals in docs/accuracy.md
RESERVED_FIXED: Final = (100, 122, 149)  # batches of one length on one GPU (22 runs: 103 to 149 on the device)
RESERVED_VARYING: Final = (102, 120, 210)  # padded batches of varying length (65 runs)
RESERVED_SHARDED: Final = (105, 135, 160)  # weights sharded over GPUs (42 runs)
# assumption: CUDA context and loaded libraries of one process on recent cards
CONTEXT_LOW: Final = 400 * MIB
CONTEXT_TYPICAL: Final = 500 * MIB
CONTEXT_HIGH: Final = 600 * MIB
# assumption: share of the peak that fragmentation keeps the allocator from returning (largest in simulated allocators)
FRAGMENTATION_PERCENT: Final = 20
# cuBLAS's workspace, one per handle (forward thread, backward thread), allocated inside torch's pool
# source: torch aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize: 32 MiB on Hopper, else 4096 KiB x 2 + 16 KiB x 8
WORKSPACE: Final = (4096 * 2 + 16 * 8) * 1024
WORKSPACE_HOPPER: Final = 32 * MIB
HANDLES: Final = 2
HOPPER: Final = ("h100", "h200", "h800", "h20", "gh200")

Band = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes. `reserved`, `device`: low, typical, high. `needed`: what a card must have, at least and with fragmentation."""

    reserved: Band
    device: Band
    needed: tuple[int, int]


def workspace_bytes(gpu: str = "") -> int:
    """cuBLAS workspaces of a training process on a card; part of what `max_memory_allocated` reports there."""
    hopper = any(name in gpu.lower() for name in HOPPER)
    return HANDLES * (WORKSPACE_HOPPER if hopper else WORKSPACE)


def overhead(allocated_bytes: int, gpu: str = "", *, varying: bool = False, sharded: bool = False) -> Overhead:
    """The bands above an allocated peak.

    Args:
        allocated_bytes: the computed peak (an array of them passes through as well).
        gpu: a card's name, for cuBLAS's workspaces.
        varying: batches are padded, so their lengths vary.
        sharded: weights are sharded over several GPUs.
    """
    base = allocated_bytes + workspace_bytes(gpu)
    low, typical, high = RESERVED_SHARDED if sharded else RESERVED_VARYING if varying else RESERVED_FIXED
    reserved = (_segments(base * low // 100), _segments(base * typical // 100), _segments(base * high // 100))
    return Overhead(
        reserved,
        (reserved[0] + CONTEXT_LOW, reserved[1] + CONTEXT_TYPICAL, reserved[2] + CONTEXT_HIGH),
        (_segments(base) + CONTEXT_TYPICAL, _segments(base * (100 + FRAGMENTATION_PERCENT) // 100) + CONTEXT_HIGH),
    )


def overhead_of(recipe: Recipe, allocated_bytes: int, gpu: str = "") -> Overhead:
    """The bands of a recipe's peak."""
    parallel = recipe.parallelism
    sharded = parallel.strategy in ("fsdp", "zero3") and parallel.gpus > 1
    return overhead(allocated_bytes, gpu, varying=recipe.padded, sharded=sharded)


def _segments(size: int) -> int:
    return -(-size // SEGMENT) * SEGMENT


ASSUMPTIONS: Final = (
    "reserved and device: bands of what published runs showed above the allocated peak (docs/accuracy.md); "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True narrows them",
    "device: 400 to 600 MiB of CUDA context (assumption)",
    "a card fits when it holds the peak, 20 % fragmentation (assumption) and the context; tight without the fragmentation",
    "allocated leaves out cuBLAS's workspaces, which torch counts too: 16.25 MiB, 64 MiB on Hopper",
)

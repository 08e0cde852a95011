"""What a training process takes on a card beside its tensors: CUDA context and cuBLAS workspaces. Sizes are bytes."""

from __future__ import annotations

from typing import Final

MIB: Final = 2**20
SEGMENT: Final = 2 * MIB

# beside the simulated pool on one A100: 1.5 to 1.7 GiB in most single-GPU runs without fused kernels (docs/accuracy.md, fms-a100 rows)
CONTEXT_MEASURED: Final = 1_650 * MIB
# CUDA context and loaded libraries of one process on recent cards (assumption)
CONTEXT_LOW: Final = 400 * MIB
CONTEXT_TYPICAL: Final = 500 * MIB
CONTEXT_HIGH: Final = 600 * MIB

# cuBLAS's workspace, one per handle (forward thread, backward thread), allocated inside torch's pool
# source: torch aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize: 32 MiB on Hopper, else 4096 KiB x 2 + 16 KiB x 8
WORKSPACE: Final = (4096 * 2 + 16 * 8) * 1024
WORKSPACE_HOPPER: Final = 32 * MIB
HANDLES: Final = 2
HOPPER: Final = ("h100", "h200", "h800", "h20", "gh200")


def workspace_of(gpu: str = "") -> int:
    """One cuBLAS workspace on a card."""
    return WORKSPACE_HOPPER if any(name in gpu.lower() for name in HOPPER) else WORKSPACE


def workspace_bytes(gpu: str = "") -> int:
    """cuBLAS workspaces of a training process on a card; part of what `max_memory_allocated` reports there."""
    return HANDLES * workspace_of(gpu)

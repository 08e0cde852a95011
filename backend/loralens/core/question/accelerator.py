"""What runs the kernels, as far as it decides which attention kernel PyTorch picks."""

from __future__ import annotations

from typing import Final

CUDA: Final = "cuda"  # compute capability 8.0 and later
BEFORE_8: Final = "cuda-before-8"
ROCM: Final = "rocm"  # chips for which AOTriton's kernels are built
ROCM_OTHER: Final = "rocm-other"
MPS: Final = "mps"
CPU: Final = "cpu"
ACCELERATORS: Final = (CUDA, BEFORE_8, ROCM, ROCM_OTHER, MPS, CPU)
# source: pytorch 2.13 aten/src/ATen/native/transformers/hip/aotriton_versions.h and cuda/sdp_utils.cpp, check_flash_attention_hardware_support
AOTRITON: Final = ("gfx90a", "gfx942", "gfx950")


def accelerator_of(compute_capability: str | None) -> str | None:
    """The accelerator of a card; None where nothing is known of its kernels.

    >>> accelerator_of("7.5"), accelerator_of("9.0"), accelerator_of("gfx1100"), accelerator_of(None)
    ('cuda-before-8', 'cuda', 'rocm-other', None)
    """
    if compute_capability is None or compute_capability == MPS:
        return compute_capability
    if compute_capability.startswith("gfx"):
        return ROCM if compute_capability in AOTRITON else ROCM_OTHER
    return CUDA if float(compute_capability) >= 8 else BEFORE_8

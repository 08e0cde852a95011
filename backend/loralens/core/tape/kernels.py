"""Which attention kernel PyTorch picks, by what runs it, and why.

Source: torch 2.13 aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (`can_use_flash_attention`,
`can_use_mem_efficient_attention`) and sdp_utils_cpp.cpp for the CPU: flash first, then the memory-efficient kernel, then math.
transformers 5.23 integrations/sdpa_attention.py (`use_gqa_in_sdpa`): grouped keys are passed on as they are only without a mask,
whatever the card.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from loralens.core.question.accelerator import BEFORE_8, CPU, CUDA, MPS, ROCM, ROCM_OTHER

FLASH, EFFICIENT, MATH = "flash", "efficient", "math"
ALIGNMENT: Final = 16  # columns of an additive mask that the memory-efficient kernel takes are a multiple of this
FLASH_MAX_HEAD_DIM: Final = {CUDA: 256, ROCM: 512}
GROUPED_EFFICIENT_SINCE: Final = (2, 14)  # torch, on CUDA alone


class Asked(NamedTuple):
    """What decides. `grouped`: keys of fewer heads are passed on; `torch`: its version."""

    accelerator: str
    dtype: str
    masked: bool
    grouped: bool
    head_dim: int
    value_dim: int
    torch: tuple[int, ...]


class Chosen(NamedTuple):
    """The kernel, and what kept the faster ones away."""

    kernel: str
    because: str


def choose(asked: Asked) -> Chosen:
    """The first kernel that takes it."""
    if asked.accelerator == CPU:
        return Chosen(FLASH, "the CPU has a flash kernel of its own")
    no_flash = next((why for stops, why in _NO_FLASH if stops(asked)), "")
    if not no_flash:
        return Chosen(FLASH, "")
    no_efficient = next((why for stops, why in _NO_EFFICIENT if stops(asked)), "")
    return Chosen(MATH, f"{no_flash}; {no_efficient}") if no_efficient else Chosen(EFFICIENT, no_flash)


_NO_FLASH: Final[tuple[tuple[Callable[[Asked], bool], str], ...]] = (
    (lambda a: a.accelerator == MPS, "MPS has no flash kernel that trains"),
    (
        lambda a: a.accelerator == ROCM_OTHER,
        "AOTriton has no kernels for this chip unless experimental ones are switched on",
    ),
    (lambda a: a.accelerator == BEFORE_8, "no flash kernel below compute capability 8.0"),
    (lambda a: a.masked, "the flash kernel takes no mask"),
    (lambda a: a.dtype == "float32", "the flash kernel takes 16 bits"),
    (lambda a: a.head_dim != a.value_dim, "the flash kernel takes heads of one width"),
    (lambda a: a.head_dim > FLASH_MAX_HEAD_DIM[a.accelerator], "the heads are too wide for the flash kernel"),
)
_NO_EFFICIENT: Final[tuple[tuple[Callable[[Asked], bool], str], ...]] = (
    (lambda a: a.accelerator in (MPS, ROCM_OTHER), "nor a memory-efficient one"),
    (
        lambda a: a.accelerator == BEFORE_8 and a.dtype == "bfloat16",
        "the memory-efficient one takes no bfloat16 there, which is emulated",
    ),
    (
        lambda a: a.grouped and not (a.torch >= GROUPED_EFFICIENT_SINCE and a.accelerator != ROCM),
        "the memory-efficient one takes no grouped keys",
    ),
)

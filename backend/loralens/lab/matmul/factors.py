"""How an adapter's factors lie in memory: once at loading, so that no call pays for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def transposed(lora_b: Tensor) -> Tensor:
    """Bᵀ with its rows contiguous, in memory of its own.

    Shapes: (out_features, rank) to (rank, out_features).
    """
    if lora_b.device.type == "cpu" and lora_b.dtype.itemsize == 2:
        # NumPy transposes narrow matrices four times as fast (12 against 42 µs for 4096 × 8), which counts when an
        # adapter is brought in from a file. It has no bfloat16, and needs none to move bits.
        bits = np.empty(lora_b.shape[::-1], np.int16)
        bits[...] = _bits(lora_b).T
        return torch.from_numpy(bits).view(lora_b.dtype)
    return lora_b.detach().t().clone(memory_format=torch.contiguous_format)


def folded(lora_bt: Tensor, scaling: float) -> tuple[Tensor, float]:
    """Multiply Bᵀ by the scaling in place, and say what is left of the scaling: 1 if it went in.

    Only powers of two go in, and only into bfloat16: multiplying by them changes exponents and no digit (its exponents
    reach as far as float32's), so nothing is rounded and it can be undone. bfloat16 products with another factor than 1
    take a slower path on CPUs: 44 against 26 µs for one row of 4096 columns on Zen 4.

    >>> folded(torch.ones(2, 3).bfloat16(), 0.5)[1], folded(torch.ones(2, 3).bfloat16(), 1.5)[1]
    (1.0, 1.5)
    """
    if lora_bt.dtype is torch.bfloat16 and abs(math.frexp(scaling)[0]) == 0.5 and 2**-16 <= scaling <= 2**16:
        return (lora_bt if scaling == 1.0 else lora_bt.mul_(scaling)), 1.0
    return lora_bt, scaling


def laid_out(pairs: Sequence[tuple[Tensor, float]]) -> list[tuple[Tensor, float]]:
    """`folded(transposed(B), scaling)` for the modules of an adapter.

    Those of one size, format and scaling become parts of one tensor, so that what is done to them is one operation.
    """
    groups: dict[Any, list[int]] = {}
    for number, (lora_b, scaling) in enumerate(pairs):
        groups.setdefault((lora_b.shape, lora_b.dtype, lora_b.device, scaling), []).append(number)
    found: dict[int, tuple[Tensor, float]] = {}
    for (shape, dtype, device, scaling), numbers in groups.items():
        if device.type == "cpu" and dtype.itemsize == 2:
            bits = np.empty((len(numbers), *shape[::-1]), np.int16)
            for part, number in zip(bits, numbers, strict=True):
                part[...] = _bits(pairs[number][0]).T
            whole, left = folded(torch.from_numpy(bits).view(dtype), scaling)
            found.update((number, (lora_bt, left)) for number, lora_bt in zip(numbers, whole.unbind(), strict=True))
        else:
            found.update((number, folded(transposed(pairs[number][0]), scaling)) for number in numbers)
    return [found[number] for number in range(len(pairs))]


def _bits(lora_b: Tensor) -> NDArray[np.int16]:
    bits: NDArray[np.int16] = (lora_b.detach() if lora_b.requires_grad else lora_b).view(torch.int16).numpy()
    return bits


def widened(lora_a: Tensor, lora_b: Tensor, scaling: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both factors in float32, laid out for x·Aᵀ and h·Bᵀ, the scaling in B.

    Shapes: lora_a (rank, in_features), lora_b (out_features, rank); the result (in_features, rank) and
    (rank, out_features).
    """
    at = lora_a.detach().to(device, torch.float32).t().contiguous()
    return at, lora_b.detach().to(device, torch.float32).t().contiguous().mul_(scaling)

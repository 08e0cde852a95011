"""Where a running training's memory is read: the caching allocator's statistics on CUDA, the process's memory elsewhere.

Both cost microseconds and synchronise nothing.
"""

from __future__ import annotations

from typing import Protocol

import psutil
import torch


class PeakWatch(Protocol):
    """`exact`: what is read is what is predicted, tensors; else it is more than that, and is shown without a verdict."""

    exact: bool
    name: str

    def begin(self) -> None:
        """A phase begins."""

    def peak_bytes(self) -> int:
        """The most since it began."""

    def limit_bytes(self) -> int | None:
        """What tensors can take on this device; None: nothing says."""


class CudaWatch:
    """`torch.cuda.max_memory_allocated`, which is reset at each phase: read your own peak from `Watch.report`.

    Source: torch 2.13 torch/cuda/memory.py.
    """

    exact = True
    name = "allocator"

    def __init__(self, device: int | None = None) -> None:
        self._device = torch.cuda.current_device() if device is None else device

    def begin(self) -> None:
        """Forget the peak."""
        torch.cuda.reset_peak_memory_stats(self._device)

    def peak_bytes(self) -> int:
        """Allocated, at most."""
        return torch.cuda.max_memory_allocated(self._device)

    def limit_bytes(self) -> int | None:
        """What is free, and what the allocator holds already."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device)


class ProcessMeter:
    """The process's resident memory at the end of a phase, less what was there before the training: no peak, and not only tensors."""

    exact = False
    name = "process"

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss

    def begin(self) -> None:
        """Nothing to forget."""

    def peak_bytes(self) -> int:
        """Resident now."""
        return max(0, self._process.memory_info().rss - self._before)

    def limit_bytes(self) -> int | None:
        """What the machine has free, and what this process took."""
        return psutil.virtual_memory().available + self.peak_bytes()


def meter_here() -> PeakWatch:
    """The allocator's where there is a CUDA device."""
    return CudaWatch() if torch.cuda.is_available() else ProcessMeter()

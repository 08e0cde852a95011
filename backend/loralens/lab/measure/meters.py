"""Peak bytes by phase: on CUDA from the caching allocator's statistics, on the CPU from the profiler's memory events."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from loralens.lab.measure.profile import ProfiledPeaks, read

PREFIX = "loralens: "


class Meter(Protocol):
    """Watches a run. `phase` brackets a part of it; `peaks` is read when the watching is over."""

    def watching(self) -> Any:
        """Context in which everything that counts must be allocated."""

    def phase(self, name: str) -> Any:
        """Context of one phase."""

    def peaks(self) -> dict[str, int]:
        """Largest allocated bytes by phase."""

    def reserved_bytes(self) -> int | None:
        """What the caching allocator held at most; None where there is none."""

    def scratch_bytes(self) -> int:
        """The most that kernels took beyond the tensors, for themselves; not part of the peaks."""


class CudaMeter:
    """`torch.cuda.max_memory_allocated`, reset before each phase."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._peaks: dict[str, int] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Start from an empty cache."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        yield

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """One phase, synchronised on both sides."""
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        yield
        torch.cuda.synchronize(self._device)
        self._peaks[name] = max(self._peaks.get(name, 0), torch.cuda.max_memory_allocated(self._device))

    def peaks(self) -> dict[str, int]:
        """Largest allocated bytes by phase."""
        return self._peaks

    def reserved_bytes(self) -> int | None:
        """The caching allocator's segments."""
        return torch.cuda.max_memory_reserved(self._device)

    def scratch_bytes(self) -> int:
        """Its statistics do not tell scratch from tensors: part of the peaks."""
        return 0


class CpuMeter:
    """Sums the profiler's allocation events; everything must be allocated while it watches."""

    def __init__(self) -> None:
        self._found = ProfiledPeaks({}, 0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record allocations from here on."""
        # else its first start and stop are told on stderr; read by libkineto once, when it starts
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            yield
        self._found = read(profile.profiler.kineto_results.events(), PREFIX)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark a phase in the record."""
        with torch.profiler.record_function(PREFIX + name):
            yield

    def peaks(self) -> dict[str, int]:
        """Largest allocated bytes by phase."""
        return self._found.tensors

    def reserved_bytes(self) -> int | None:
        """The CPU allocator caches nothing."""
        return None

    def scratch_bytes(self) -> int:
        """See `profile`."""
        return self._found.scratch


def meter_for(device: torch.device) -> Meter:
    """The meter of a device."""
    return CudaMeter(device) if device.type == "cuda" else CpuMeter()

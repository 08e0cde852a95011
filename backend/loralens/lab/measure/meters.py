"""Peak bytes by phase: on CUDA from the caching allocator's statistics, on the CPU from the profiler's memory events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

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


class CpuMeter:
    """Sums the profiler's allocation events; everything must be allocated while it watches."""

    def __init__(self) -> None:
        self._profile: Any = None
        self._peaks: dict[str, int] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record allocations from here on."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as self._profile:
            yield
        self._peaks = _read(self._profile)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark a phase in the record."""
        with torch.profiler.record_function(PREFIX + name):
            yield

    def peaks(self) -> dict[str, int]:
        """Largest allocated bytes by phase."""
        return self._peaks

    def reserved_bytes(self) -> int | None:
        """The CPU allocator caches nothing."""
        return None


def _read(profile: Any) -> dict[str, int]:
    events = profile.profiler.kineto_results.events()
    spans = [
        (event.name().removeprefix(PREFIX), event.start_ns(), event.start_ns() + event.duration_ns())
        for event in events
        if event.name().startswith(PREFIX)
    ]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    peaks: dict[str, int] = {}
    for name, begin, end in spans:
        live = sum(size for at, size in changes if at < begin)
        highest = live
        for at, size in changes:
            if begin <= at <= end:
                live += size
                highest = max(highest, live)
        peaks[name] = max(peaks.get(name, 0), highest)
    return peaks


def meter_for(device: torch.device) -> Meter:
    """The meter of a device."""
    return CudaMeter(device) if device.type == "cuda" else CpuMeter()

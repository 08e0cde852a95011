"""The device of a benchmark: its clock, its caches, its memory, and what may disturb a measurement on it."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from loralens.core.errors import DeviceUnavailable

MIB = 2**20
_ASSUMED_CACHE_BYTES = 32 * MIB
"""Assumption, where the system does not tell its last-level cache."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds per call, and the wall-clock seconds that passed for it on the host."""

    seconds: float
    wall_seconds: float


class Device:
    """A place where tensors live and time is measured.

    Args:
        name: "cpu", "cuda:0" or "mps".
        threads: CPU threads. One thread is timed by its own CPU clock, which a busy machine cannot stretch; with
            more, only the wall clock sees all of them.

    Raises:
        DeviceUnavailable: not in this machine.
    """

    def __init__(self, name: str = "cpu", threads: int = 1) -> None:
        self.name = name
        self.kind = name.partition(":")[0]
        self.threads = threads
        if self.kind == "cuda" and not torch.cuda.is_available():
            raise DeviceUnavailable("no CUDA device can be used here", field="device", hint="use --device cpu")
        if self.kind == "mps" and not torch.backends.mps.is_available():
            raise DeviceUnavailable("no Apple GPU can be used here", field="device", hint="use --device cpu")
        self.torch = torch.device(name)
        if self.kind == "cuda":
            if (self.torch.index or 0) >= torch.cuda.device_count():
                raise DeviceUnavailable(f"this machine has no {name}", field="device")
            torch.cuda.set_device(self.torch)
        torch.set_num_threads(threads)

    @property
    def clock(self) -> str:
        """Which clock the times are from."""
        if self.kind == "cuda":
            return "CUDA events"
        if self.kind == "mps":
            return "wall clock, synchronized"
        return "CPU time of one thread" if self.threads == 1 else f"wall clock, {self.threads} threads"

    def time(self, call: Callable[[int], object], first: int, repeats: int) -> Sample:
        """Run `call(first)`, `call(first + 1)`, … and time them together."""
        if self.kind == "cuda":
            return self._time_cuda(call, first, repeats)
        if self.kind == "mps":
            self.synchronize()
        on_cpu_time = self.kind == "cpu" and self.threads == 1
        wall = time.perf_counter_ns()
        begin = time.thread_time_ns() if on_cpu_time else wall
        for index in range(first, first + repeats):
            call(index)
        if self.kind == "mps":
            self.synchronize()
        end = time.thread_time_ns() if on_cpu_time else time.perf_counter_ns()
        passed = time.perf_counter_ns() - wall
        return Sample((end - begin) / repeats / 1e9, passed / repeats / 1e9)

    def _time_cuda(self, call: Callable[[int], object], first: int, repeats: int) -> Sample:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        wall = time.perf_counter_ns()
        start.record()
        for index in range(first, first + repeats):
            call(index)
        stop.record()
        stop.synchronize()
        passed = time.perf_counter_ns() - wall
        return Sample(start.elapsed_time(stop) / repeats / 1e3, passed / repeats / 1e9)

    def synchronize(self) -> None:
        """Wait until the device has done what it was given."""
        if self.kind == "cuda":
            torch.cuda.synchronize(self.torch)
        elif self.kind == "mps":
            torch.mps.synchronize()

    def cache_bytes(self) -> int:
        """Size of the last-level cache that weights may stay in between two calls."""
        if self.kind == "cuda":
            return int(torch.cuda.get_device_properties(self.torch).L2_cache_size)
        return _cpu_cache_bytes() if self.kind == "cpu" else _ASSUMED_CACHE_BYTES

    def flush_bytes(self) -> int:
        """What `flusher` writes: twice the last-level cache."""
        return max(2 * self.cache_bytes(), 128 * MIB)

    def flusher(self) -> Callable[[], None]:
        """A function that leaves nothing of use in the last-level cache."""
        buffer = torch.empty(self.flush_bytes() // 4, dtype=torch.float32, device=self.torch)

        def flush() -> None:
            buffer.zero_()

        return flush

    def free_bytes(self) -> int:
        """Memory that a run may take."""
        if self.kind == "cuda":
            return int(torch.cuda.mem_get_info(self.torch)[0])
        try:
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        except (OSError, ValueError):
            return 4 * 2**30  # assumption, where the system does not tell

    def empty_cache(self) -> None:
        """Give back what a finished point held."""
        gc.collect()
        if self.kind == "cuda":
            torch.cuda.empty_cache()

    def describe(self) -> dict[str, object]:
        """What a reader needs to judge or repeat a measurement."""
        about: dict[str, object] = {
            "device": self.name,
            "name": self._device_name(),
            "threads": self.threads if self.kind == "cpu" else None,
            "clock": self.clock,
            "cache_bytes": self.cache_bytes(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "load_average": load_average(),
        }
        if self.kind == "cpu":
            about["capability"] = torch.backends.cpu.get_cpu_capability()
        if self.kind == "cuda":
            about["cuda"] = torch.version.cuda
            about["clocks"] = clocks(self.torch.index or 0)
        return about

    def _device_name(self) -> str:
        if self.kind == "cuda":
            return torch.cuda.get_device_name(self.torch)
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
        return platform.processor() or platform.machine()


def load_average() -> float | None:
    """Runnable processes, averaged over a minute; None where the system has no such figure."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def clocks(index: int) -> dict[str, object] | None:
    """Clocks, power and throttle reasons of an NVIDIA GPU by NVML; None without it.

    Source: NVML reference, nvmlDeviceGetCurrentClocksEventReasons; the bits that mean a slowed device are
    0x4 power cap, 0x8 hardware slowdown, 0x20 software thermal, 0x40 hardware thermal, 0x80 power brake.
    """
    try:
        import pynvml as nvml
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            reasons = int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
            return {
                "sm_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
                "sm_max_mhz": nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
                "memory_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
                "power_watts": nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                "temperature_celsius": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                "throttle": [name for bit, name in _THROTTLE.items() if reasons & bit],
                "other_processes": max(0, len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)) - 1),
            }
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return None


_THROTTLE = {
    0x4: "power cap", 0x8: "hardware slowdown", 0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown", 0x80: "power brake",
}  # fmt: skip


def _cpu_cache_bytes() -> int:
    """The largest cache that Linux names for CPU 0."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    found = [_ASSUMED_CACHE_BYTES] if not Path("/sys/devices/system/cpu/cpu0/cache").is_dir() else []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        found.append(int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text or 0))
    return max(found, default=_ASSUMED_CACHE_BYTES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch or Python reports that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and ("memory" in str(error) and "alloc" in str(error))

"""What this machine is, read without importing torch: processor, memory, GPUs, optional packages."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import loralens

OPTIONAL_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "ray")


def system_answer() -> dict[str, Any]:
    """The answer of `GET /api/system`. No GPU is a state of the machine, not an error."""
    total, free = _memory_bytes()
    cpu = {
        "id": "cpu",
        "kind": "cpu",
        "name": _processor_name(),
        "memory_bytes": total,
        "free_bytes": free,
        "driver": None,
    }
    return {
        "loralens": loralens.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_cores": _usable_cores(),
        "memory_bytes": total,
        "devices": [*_nvidia_gpus(), *_apple_gpu(total), cpu],
        "packages": {name: _installed(name) for name in OPTIONAL_PACKAGES},
    }


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _usable_cores() -> int:
    # In a container with a CPU set, cpu_count would name the host's cores.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_bytes() -> tuple[int | None, int | None]:
    """Total and available memory; a container's own limit is the smaller truth (cgroup v2, then v1)."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None, None
    free = None
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = next(iter(_lines(path)), "").strip()
        if limit.isdigit() and int(limit) < total:
            return int(limit), None if free is None else min(free, int(limit))
    return total, free


def _processor_name() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _nvidia_gpus() -> list[dict[str, Any]]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver: no NVIDIA GPU
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        return [_nvidia_gpu(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _nvidia_gpu(nvml: Any, index: int, driver: str) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    row = {
        "id": f"cuda:{index}",
        "kind": "cuda",
        "name": nvml.nvmlDeviceGetName(handle),
        "memory_bytes": None,
        "free_bytes": None,
        "driver": driver,
    }
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError:
        return row  # devices with shared memory do not report it
    return row | {"memory_bytes": int(memory.total), "free_bytes": int(memory.free)}


def _apple_gpu(memory_bytes: int | None) -> list[dict[str, Any]]:
    if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        return []
    name = "Apple GPU (shares the machine's memory)"
    row = {"id": "mps", "kind": "mps", "name": name, "memory_bytes": memory_bytes, "free_bytes": None, "driver": None}
    return [row]

"""The machine is described without torch, and a machine without a GPU is no error."""

from __future__ import annotations

import sys
import types

import pytest

from loralens import host


class NvmlError(Exception):
    pass


def fake_nvml(**functions):
    module = types.ModuleType("pynvml")
    module.NVMLError = NvmlError
    module.nvmlShutdown = lambda: None
    module.nvmlInit = lambda: None
    for name, function in functions.items():
        setattr(module, name, function)
    return module


def fail(*_):
    raise NvmlError


def test_no_driver_is_no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlInit=fail))
    assert host._nvidia_gpus() == []


def test_no_library_is_no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert host._nvidia_gpus() == []


@pytest.mark.parametrize("reports_memory", [True, False])
def test_a_gpu_is_described(monkeypatch, reports_memory):
    memory = types.SimpleNamespace(total=85_899_345_920, free=80_000_000_000)
    nvml = fake_nvml(
        nvmlSystemGetDriverVersion=lambda: "580.95",
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: "NVIDIA H100 80GB HBM3",
        nvmlDeviceGetMemoryInfo=(lambda handle: memory) if reports_memory else fail,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    (gpu,) = host._nvidia_gpus()
    assert (gpu["id"], gpu["driver"]) == ("cuda:0", "580.95")
    assert gpu["memory_bytes"] == (memory.total if reports_memory else None)


def test_an_apple_gpu_shares_the_memory(monkeypatch):
    monkeypatch.setattr(host.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(host.platform, "machine", lambda: "arm64")
    (gpu,) = host._apple_gpu(2**35)
    assert (gpu["id"], gpu["memory_bytes"]) == ("mps", 2**35)


def test_a_containers_limit_is_the_memory(monkeypatch):
    lines = {"/sys/fs/cgroup/memory.max": ["1073741824"], "/proc/meminfo": ["MemAvailable: 9000000 kB"]}
    monkeypatch.setattr(host, "_lines", lambda path: lines.get(path, []))
    assert host._memory_bytes() == (2**30, 2**30)


def test_no_limit_is_the_machines_memory(monkeypatch):
    monkeypatch.setattr(host, "_lines", lambda path: ["max"] if path.endswith("memory.max") else [])
    total, free = host._memory_bytes()
    assert total > 2**28
    assert free is None

"""How an exception inside a job is reported outside of it: a JSON-able record, and back."""

from __future__ import annotations

import signal

from loralens.core.errors import DeviceUnavailable, JobFailed, LoraLensError, OutOfMemory
from loralens.jobs.model import ToldError

# Texts with which PyTorch reports that memory is short (RuntimeError on CPU, its own class on GPUs).
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")
# Texts of CUDA when the device itself is gone or its context is beyond repair: the process must be replaced.
_DEVICE_LOST = ("unspecified launch failure", "device-side assert", "illegal memory access", "device is lost",
                "uncorrectable ECC", "GPU is lost", "fallen off the bus")  # fmt: skip


class DeviceLost(DeviceUnavailable):
    """The device failed while a job worked on it."""

    code = "device_lost"
    title = "Device lost"


def record(error: LoraLensError) -> ToldError:
    """What a problem body needs."""
    return {
        "code": error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "field": error.field,
        "hint": error.hint,
    }


def from_exception(error: BaseException) -> LoraLensError:
    """Any exception of a job as one of our own: out of memory and a lost device are distinguished from bugs."""
    if isinstance(error, LoraLensError):
        return error
    text = " ".join(str(error).split())[:500]
    if isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
        return OutOfMemory(
            f"the device ran out of memory: {text or 'MemoryError'}", hint="choose smaller sizes or another device"
        )
    if any(words in text for words in _DEVICE_LOST):
        return DeviceLost(f"the device failed: {text}", hint="start the job again; it gets a fresh process")
    return JobFailed(f"{type(error).__name__}: {text}", hint="the server's log says where")


def from_exit(code: int | None) -> LoraLensError:
    """The error for a job process that ended silently, by exit code (negative: the signal that killed it)."""
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = None
        if name == "SIGKILL":
            hint = "Linux kills a process this way when memory runs out; choose smaller sizes"
        return JobFailed(f"the job's process was killed by {name} (exit code {code})", hint=hint)
    return JobFailed(f"the job's process ended with exit code {code}", hint="start the job again")


def is_fatal(error: ToldError) -> bool:
    """Whether the process that reported this error must not be used again."""
    return error["code"] in ("device_lost", "out_of_memory")

import pytest

from loralens.core.errors import InvalidInput, JobFailed, OutOfMemory
from loralens.jobs import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
         "out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), "out_of_memory"),
        (RuntimeError("CUDA error: unspecified launch failure"), "device_lost"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device_lost"),
        (ValueError("anything else"), "job_failed"),
        (InvalidInput("rank must be at least 1", field="rank"), "invalid_input"),
    ],
)  # fmt: skip
def test_each_kind_of_failure_has_its_code(error, code):
    told = errors.record(errors.from_exception(error))
    assert told["code"] == code and set(told) == {"code", "title", "status", "detail", "field", "hint"}
    assert errors.is_fatal(told) == (code in ("out_of_memory", "device_lost"))


def test_the_end_of_a_process_is_told_by_its_signal_or_code():
    assert "SIGKILL" in errors.from_exit(-9).message and "memory" in errors.from_exit(-9).hint
    assert "signal 99" in errors.from_exit(-99).message
    assert "exit code 3" in errors.from_exit(3).message
    assert isinstance(errors.from_exit(None), JobFailed) and issubclass(OutOfMemory, JobFailed)

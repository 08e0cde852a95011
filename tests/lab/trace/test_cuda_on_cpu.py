from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import loralens  # noqa: E402
from loralens.core.errors import DependencyMissing  # noqa: E402
from loralens.lab.trace import cuda_on_cpu  # noqa: E402

ENVIRONMENT = {"PYTHONPATH": str(Path(loralens.__file__).parent.parent), "PATH": "/usr/bin:/bin"}
BACKWARD = """
from loralens.lab.trace.cuda_on_cpu import cuda_words, install
install()
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
before = torch.accelerator.current_accelerator()
for _ in range(2):
    with cuda_words(), FakeTensorMode(), torch.autograd.set_multithreading_enabled(False):
        w = torch.empty(3, 3, device='cuda', requires_grad=True)
        (w @ w + w.relu()).sum().backward()
        print(w.grad.device)
print(torch.cuda.is_available(), torch.cuda.is_initialized(), torch.accelerator.current_accelerator() == before)
w = torch.ones(2, 2, requires_grad=True)
(w @ w + w.relu()).sum().backward()
print(w.grad.sum().item())
"""


def python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False
    )


@pytest.mark.parametrize(
    ("word", "value", "reason"),
    [
        ("TESTED", ("0.1.",), "this version was not tested"),
        ("_SUFFIX", {"Windows": ".dll"}, "was not tested"),
        ("card_is_visible", lambda: True, "CUDA_VISIBLE_DEVICES="),
    ],
)
def test_another_build_is_refused_with_the_reason(monkeypatch, word, value, reason):
    monkeypatch.setattr(cuda_on_cpu, word, value)
    monkeypatch.setattr(cuda_on_cpu, "_outcome", [])
    for _ in range(2):  # and again, whatever was tried before
        with pytest.raises(DependencyMissing, match=reason) as caught:
            cuda_on_cpu.install()
        assert f"torch {torch.__version__} on" in caught.value.message
        assert "torch==2.13.0" in (caught.value.hint or "")


def test_words_about_cuda_are_taken_back():
    before = (torch.cuda.current_device, torch.cuda.is_bf16_supported, torch.cuda.get_device_capability)
    with cuda_on_cpu.cuda_words():
        assert not torch.cuda.is_available()
        assert torch.cuda.get_device_capability() == (8, 0)
    assert before == (torch.cuda.current_device, torch.cuda.is_bf16_supported, torch.cuda.get_device_capability)


def test_a_fresh_process_runs_backward_passes_and_ends_well():
    """Twice, and real tensors with all of autograd's threads after it; CUDA is never started."""
    done = python(BACKWARD)
    assert done.stdout.split() == ["cuda:0", "cuda:0", "False", "False", "True", "20.0"], done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux" or torch.version.cuda is not None, reason="plays another build")
def test_another_accelerator_that_is_built_in_stands_back_while_tracing():
    """As on macOS, where the engine asks MPS for its streams; afterwards MPS is the accelerator again."""
    disguise = """
import ctypes, torch
from loralens.lab.trace import cuda_on_cpu as c
library = c._library("libtorch_cpu")
get = library["_ZN2at6detail11getMPSHooksEv"]
get.restype = ctypes.c_void_p
hooks = ctypes.cast(get(), ctypes.POINTER(ctypes.c_void_p))
table = (ctypes.c_void_p * 64)(*(ctypes.c_void_p * 64).from_address(hooks[0] - 16))
table[2 + c._IS_BUILT] = table[2 + c._HAS_CONTEXT] = c._native_yes(library)
hooks[0] = ctypes.addressof(table) + 16
MPS = 13
guards = (ctypes.c_void_p * 21).in_dll(c._library("libc10"), "_ZN3c104impl26device_guard_impl_registryE")
guards[MPS] = guards[0]
assert torch.accelerator.current_accelerator().type == "mps"
"""
    done = python(disguise + BACKWARD)
    assert done.stdout.split() == ["cuda:0", "cuda:0", "False", "False", "True", "20.0"], done.stderr
    assert done.returncode == 0, done.stderr

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import loralens  # noqa: E402
from loralens.core.errors import DependencyMissing  # noqa: E402
from loralens.lab.trace import cuda_on_cpu  # noqa: E402


@pytest.mark.skipif(torch.version.cuda is not None, reason="a CUDA build needs none of this")
def test_another_build_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(cuda_on_cpu, "TESTED", ("0.1.",))
    monkeypatch.setattr(cuda_on_cpu, "_kept", [])
    with pytest.raises(DependencyMissing, match=f"this is torch {torch.__version__}".replace("+", r"\+")) as caught:
        cuda_on_cpu.install()
    assert "loralens[trace]" in (caught.value.hint or "")


def test_words_about_cuda_are_taken_back():
    before = (torch.cuda.current_device, torch.cuda.is_bf16_supported, torch.cuda.get_device_capability)
    with cuda_on_cpu.cuda_words():
        assert torch.cuda.is_available() == (torch.version.cuda is not None and torch.cuda.is_available())
        if torch.version.cuda is None:
            assert torch.cuda.get_device_capability() == (8, 0)
    assert before == (torch.cuda.current_device, torch.cuda.is_bf16_supported, torch.cuda.get_device_capability)


def test_a_fresh_process_runs_a_backward_pass_and_ends_well():
    script = (
        "from loralens.lab.trace.cuda_on_cpu import install; install(); install(); import torch;"
        "from torch._subclasses.fake_tensor import FakeTensorMode\n"
        "with FakeTensorMode(), torch.autograd.set_multithreading_enabled(False):\n"
        "    w = torch.empty(3, 3, device='cuda', requires_grad=True); (w @ w).sum().backward(); print(w.grad.device)"
    )
    environment = {"PYTHONPATH": str(Path(loralens.__file__).parent.parent), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.stdout.strip() == "cuda:0"
    assert done.returncode == 0, done.stderr

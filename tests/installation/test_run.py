"""How far pip is, as it prints it: read, kept in the state folder, and said when it fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from installation.conftest import ENVIRONMENT, until

from loralens.installation import state
from loralens.installation.run import Output

# What pip 26.3 prints with --progress-bar raw, an index with and one without separate metadata.
PIP = """\
Collecting torch==2.13.0 (from loralens==0.1.0)
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (31 kB)
Collecting sympy>=1.13.3 (from torch==2.13.0)
  Downloading sympy-1.14.0-py3-none-any.whl (6.3 MB)
Progress 0 of 6299353
Progress 6299353 of 6299353
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (858.1 MB)
Progress 0 of 858101234
Progress 262144 of 858101234"""


def read(text: str) -> Output:
    output = Output(0.0)
    for line in text.splitlines():
        output.line(line)
    return output


def test_the_bytes_of_all_files_are_counted_and_the_one_on_its_way_is_named():
    now = read(PIP).progress
    assert (now.phase, now.downloaded_bytes) == ("downloading", 6_299_353 + 262_144)
    assert (now.file, now.file_bytes, now.file_total_bytes) == ("torch", 262_144, 858_101_234)


def test_after_the_downloads_it_is_unpacked():
    now = read(PIP + "\nInstalling collected packages: sympy, torch").progress
    assert (now.phase, now.file, now.downloaded_bytes) == ("unpacking", None, 6_299_353 + 262_144)


@pytest.mark.parametrize(
    ("lines", "failure", "words"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk_full",
            "full",
        ),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(Failed to establish a new"
            " connection)'\nERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions:"
            " none)\nERROR: No matching distribution found for torch==2.13.0",
            "unreachable",
            "could not be reached",
        ),
        ("ERROR: HTTP error 403 while getting torch-2.13.0.whl", "unreachable", "403"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no_build", "no build of PyTorch"),
        ("Killed", "other", "exit code 137"),
    ],
)
def test_a_failure_is_told_apart(lines, failure, words):
    failed = read(lines).failed(137)
    assert failed.failure == failure
    assert words in failed.reason


def test_a_reader_sees_it_come_and_be_ready(installer, tmp_path):
    running = installer(f"{{ cat <<'END'\n{PIP}\nEND\n}}; until [ -e go ]; do sleep 0.05; done")
    until(lambda: state.answer(tmp_path)["file"] == "torch")
    now = state.answer(tmp_path)
    assert (now["status"], now["downloaded_bytes"], now["hint"]) == ("installing", 6_561_497, None)
    (tmp_path / "go").touch()
    code, out, complaints = running.ended()
    assert (code, complaints) == (0, "")
    assert "The lab is ready" in out
    assert not (tmp_path / "lab.json").exists()
    assert "Progress" not in running.log.read_text()
    assert "Downloading sympy" in running.log.read_text()


def test_a_failed_download_says_how_to_try_again(installer, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "PACKAGES", ("a-package-that-nobody-has",))
    code, _, complaints = installer("echo 'ERROR: HTTP error 403 while getting torch.whl'; exit 1").ended()
    assert code == 1
    assert "./start.sh lab" in complaints and "403" in complaints and "Traceback" not in complaints
    now = state.answer(tmp_path)
    assert (now["status"], now["failure"]) == ("failed", "unreachable")
    assert now["hint"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_installation_is_known_as_such(installer, tmp_path, monkeypatch, how):
    monkeypatch.setattr(state, "PACKAGES", ("a-package-that-nobody-has",))
    running = installer("echo $$ >pip.pid; exec sleep 600")
    until(lambda: (tmp_path / "pip.pid").exists() and (tmp_path / "pip.pid").read_text())
    pip = int((tmp_path / "pip.pid").read_text())
    running.process.send_signal(how)
    running.process.wait(timeout=30)
    if how == signal.SIGKILL:
        os.kill(pip, signal.SIGTERM)  # nobody is left to do it
    until(lambda: not lives(pip))
    running.ended()
    now = state.answer(tmp_path)
    assert (now["status"], now["failure"]) == ("failed", "stopped")


def test_it_ends_with_what_started_it(tmp_path):
    command = [sys.executable, "-m", "loralens.installation.run", "--log", str(tmp_path / "log")]
    command += ["--", "bash", "-c", "echo $$ >pip.pid; exec sleep 600"]
    starter = subprocess.Popen(
        ["bash", "-c", '"$@" & read -r _', "starter", *command],
        stdin=subprocess.PIPE, cwd=tmp_path, env={**ENVIRONMENT, "LORALENS_STATE_DIR": str(tmp_path)},
    )  # fmt: skip
    until(lambda: (tmp_path / "pip.pid").exists() and (tmp_path / "pip.pid").read_text())
    pip = int((tmp_path / "pip.pid").read_text())
    assert lives(pip)
    starter.kill()
    starter.communicate(timeout=30)
    until(lambda: not lives(pip))


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

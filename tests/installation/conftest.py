"""What the tests of the installation share: a stand-in for pip that says what pip says, when it is told to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "backend")}


class Installer:
    """`python -m loralens.installation.run` on a shell script in place of pip, in a state folder of its own."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        self.log = folder / "log" / "lab.log"
        command = [
            sys.executable,
            "-m",
            "loralens.installation.run",
            "--log",
            str(self.log),
            "--",
            "bash",
            "-c",
            script,
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
            env={**ENVIRONMENT, "LORALENS_STATE_DIR": str(folder)},
        )  # fmt: skip

    def ended(self) -> tuple[int, str, str]:
        """Exit code, output and complaints."""
        out, complaints = self.process.communicate(timeout=60)
        return self.process.returncode, out, complaints


@pytest.fixture
def installer(tmp_path: Path):
    """Starts installers, and ends those that still run."""
    started: list[Installer] = []

    def start(script: str) -> Installer:
        started.append(Installer(tmp_path, script))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.communicate(timeout=30)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is true; a condition on another process has no event to wait for."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import loralens

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("LORALENS_", "PORT", "HOST"))},
    "PYTHONPATH": str(Path(loralens.__file__).parent.parent),
    "COLUMNS": "160",
    "NO_COLOR": "1",
}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def loralens_command() -> Run:
    """The command as a user starts it: a process of its own."""

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "loralens", *words]
        return subprocess.run(command, capture_output=True, text=True, input=stdin, env=ENVIRONMENT, timeout=60)

    return run


@pytest.fixture
def run(capfdbinary):
    """The command in this process (quicker): returns exit code, stdout, stderr."""
    from loralens.cli.main import run as run_in_process

    def run(*words: str) -> tuple[int, str, str]:
        code = run_in_process(words)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return code, out.decode(), err.decode()

    return run

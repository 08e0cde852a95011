"""Answers from a tree of files: this one, or an earlier revision unpacked beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from replay.cases import Case

ROOT = Path(__file__).resolve().parents[2]
Answers = dict[str, dict[str, Any]]


class Asked:
    """A process that answers cases with one tree's code, beside others that do the same."""

    def __init__(self, tree: Path, cases: list[Case], published: bool) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LORALENS_")}
        self._state = TemporaryDirectory(prefix="replay-state-")
        environment = kept | {
            "PYTHONPATH": str(tree / "backend"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1",
            "LORALENS_HUB": "off",
            "LORALENS_STATE_DIR": self._state.name,
        }
        questions = [*cases, *([{"published": True}] if published else [])]
        self._input = Path(self._state.name) / "cases.jsonl"
        self._input.write_text("".join(json.dumps(case) + "\n" for case in questions), encoding="utf-8")
        self._output = self._input.with_name("answers.jsonl")
        with self._input.open(encoding="utf-8") as given, self._output.open("w", encoding="utf-8") as taken:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", str(Path(__file__).with_name("answers.py"))],
                cwd=tree,
                env=environment,
                stdin=given,
                stdout=taken,
            )

    def answers(self) -> Answers:
        """Every answer by its case's name.

        Raises:
            RuntimeError: the process did not end well; what it said is on standard error.
        """
        with self._state:
            if self._process.wait():
                raise RuntimeError("a revision could not be asked: see above")
            return dict(json.loads(line) for line in self._output.read_text(encoding="utf-8").splitlines())


def catalogue(tree: Path = ROOT) -> list[str]:
    """The ids of all catalogue models of a tree."""
    command = [sys.executable, "-m", "loralens", "models", "--json"]
    environment = os.environ | {"PYTHONPATH": str(tree / "backend")}
    printed = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True).stdout
    return sorted(model["id"] for model in json.loads(printed)["models"])


@contextmanager
def unpacked(revision: str) -> Iterator[Path]:
    """The backend and the published runs of a revision, in a temporary folder."""
    packed = subprocess.run(
        ["git", "archive", revision, "backend", "docs/accuracy"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with TemporaryDirectory(prefix="replay-base-") as folder:
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def default_base() -> str:
    """Where this branch left main; on main itself, the commit before."""
    head = _git("rev-parse", "HEAD")
    for main in ("main", "origin/main"):
        left = _git("merge-base", "HEAD", main)
        if left:
            return left if left != head else "HEAD~1"
    return "HEAD~1"


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

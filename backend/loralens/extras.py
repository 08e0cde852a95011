"""Optional packages: how to get them, in words that work in the environment that asks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from loralens.core.errors import DependencyMissing

_CHECKOUT = Path(__file__).resolve().parents[2]


def how_to_install(extra: str) -> str:
    """The command that brings the packages of an extra of pyproject.toml (lab, trace, cluster, …)."""
    if (_CHECKOUT / "start.sh").is_file() and Path(sys.prefix).resolve() == _CHECKOUT / ".venv":
        return "./start.sh lab" if extra == "lab" else f"LORALENS_EXTRAS={extra} ./start.sh lab"
    return f"pip install {' '.join(_requirements(extra))}"


def _requirements(extra: str) -> list[str]:
    """What the installed package says that an extra needs, such as "torch==2.13.0"."""
    try:
        lines = requires("loralens") or []
    except PackageNotFoundError:  # run from its folder, without being installed
        lines = []
    ends = {f'; extra == "{extra}"', f"; extra == '{extra}'"}
    found = [line.partition(";")[0].strip() for line in lines if any(line.endswith(end) for end in ends)]
    if not found:
        return ["-e", f"'backend[{extra}]'"]
    return [f'"{text}"' if set(text) & set("<>;!*") else text for text in found]


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """For imports inside: one that fails is told as a missing package, with the way to get it.

    Raises:
        DependencyMissing: `what` (such as "tracing") needs a package that is not there, or is there in another version.
    """
    try:
        yield
    except ModuleNotFoundError as problem:
        if problem.name is None or problem.name.partition(".")[0] == "loralens":
            raise
        name = problem.name.partition(".")[0]
        raise DependencyMissing(f"{what} needs {name}, which is not installed", hint=how_to_install(extra)) from problem
    except ImportError as problem:
        raise DependencyMissing(f"{what} cannot start: {problem}", hint=how_to_install(extra)) from problem

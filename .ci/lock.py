"""Write backend/constraints.txt: the exact version of everything that backend/pyproject.toml brings, as installed now.

Run through `make lock` in an environment in which all tests passed.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BACKEND = Path(__file__).resolve().parent.parent / "backend"
HEADER = """\
# The exact version of everything that pyproject.toml brings, extras and groups included.
# Written by `make lock` from the environment in which all tests passed.
"""


def wanted() -> list[str]:
    """Every requirement that pyproject.toml states."""
    project = tomllib.loads((BACKEND / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    lists = [project["build-system"]["requires"], project["project"]["dependencies"]]
    lists += extras.values()
    return [text for part in (*lists, *project["dependency-groups"].values()) for text in part]


def closure(requirements: list[str]) -> dict[str, str]:
    """Name to version of the requirements and of all that they require here.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        found = distribution(name)
        versions[name] = found.version.split("+")[0]  # torch 2.13.0+cpu and its CUDA build are one version
        for text in found.requires or []:
            below = Requirement(text)
            extras = requirement.extras or {""}
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(below)
    return versions


if __name__ == "__main__":
    pins = closure(wanted())
    lines = [f"{name}=={pins[name]}\n" for name in sorted(pins)]
    (BACKEND / "constraints.txt").write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"{len(pins)} packages pinned")

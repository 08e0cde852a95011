"""What the lessons import from the package is there: they are no part of what is type-checked with it."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).resolve().parents[2] / "code" / "part2").glob("*.py"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_name_of_the_package_is_there(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("loralens"):
            module = import_module(node.module or "")
            for name in node.names:
                found = hasattr(module, name.name) or import_module(f"{node.module}.{name.name}")
                assert found, f"{path.name}: {node.module} has no {name.name}"

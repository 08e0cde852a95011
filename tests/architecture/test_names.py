"""One name for one idea: a class name stands once in the package, capitals aside."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "backend" / "loralens"
SAME_IDEA = {
    "Recipe": "core's words of a training set-up, and their component in the API's schema, which has to bear that name"
}


def test_no_class_name_is_defined_twice() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name.lower()].append(f"{path.relative_to(PACKAGE)}: {node.name}")
    assert len(found) > 500
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert twice.keys() - {name.lower() for name in SAME_IDEA} == set(), twice
    assert twice.keys() == {name.lower() for name in SAME_IDEA}

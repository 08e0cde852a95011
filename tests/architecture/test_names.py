"""One name for one idea: a class name stands once in the package, capitals aside, and a key once in an object of a JSON file."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "backend" / "loralens"
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


def test_no_key_of_a_file_hides_another() -> None:
    found = []

    def read(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        found.extend(f"{path.relative_to(ROOT)}: {key}" for key in {*keys} if keys.count(key) > 1)
        return dict(pairs)

    for path in [*PACKAGE.rglob("*.json"), *(ROOT / "frontend" / "src").rglob("*.json")]:
        json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=read)
    assert found == []

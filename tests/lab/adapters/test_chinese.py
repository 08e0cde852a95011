"""What is refused about adapters is refused in Chinese on the Chinese page: every sentence in the code has its rule."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PACKAGE: Final = ROOT / "backend/loralens/lab/adapters"
RULES: Final = json.loads((ROOT / "frontend/src/features/adapters/refusals.zh-CN.json").read_text("utf-8"))
ON_THE_PAGE: Final = (
    "adalora", "adapter", "begins", "comparing", "config", "header", "kinds", "merging", "parameters", "plain", "resize",
    "several", "spectrum", "formats/names", "formats/reading", "formats/torchtune", "formats/writing",
)  # fmt: skip
RAISED: Final = ("InvalidInput", "InputTooLarge", "NotFound", "_invalid")


def _texts(node: ast.expr) -> list[str]:
    """What an expression can say, with § for each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(part.value) if isinstance(part, ast.Constant) else "§" for part in node.values)]
    if isinstance(node, ast.BinOp):
        return [left + right for left in _texts(node.left) for right in _texts(node.right)]
    return _texts(node.body) + _texts(node.orelse) if isinstance(node, ast.IfExp) else ["§"]


def _refusals() -> Iterator[tuple[str, str]]:
    for name in ON_THE_PAGE:
        for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED and node.args:
                field_first = name == "config" and node.func.id == "_invalid"
                for text in _texts(node.args[1 if field_first else 0]):
                    if re.search("[a-z]", text):
                        yield name, text


def test_every_refusal_has_a_rule() -> None:
    refusals = list(_refusals())
    assert len(refusals) > 120
    missing = [(name, text) for name, text in refusals if not any(re.fullmatch(p, text, re.DOTALL) for p, _ in RULES)]
    assert missing == []

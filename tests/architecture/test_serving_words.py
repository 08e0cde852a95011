"""What the answer about serving says has Chinese on the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

from loralens.core.answer.serving import serving_answer

RULES = Path(__file__).resolve().parents[2] / "frontend/src/features/adapters/serving.zh-CN.json"


def test_every_term_and_assumption_of_serving_has_a_rule() -> None:
    answer = serving_answer({"model": "7B", "adapters": [{"rank": 8, "count": 6}, {"rank": 64, "count": 2}]})
    said = {
        str(term[part])  # type: ignore[literal-required]
        for term in answer["terms"]
        for part in ("name", "formula", "substituted", "source")
    } | set(answer["assumptions"])
    assert all("(" not in term["substituted"] and "B" in term["substituted"] for term in answer["terms"])
    rules = [re.compile(pattern) for pattern, _ in json.loads(RULES.read_text("utf-8"))]
    assert {text for text in said if not any(rule.fullmatch(text) for rule in rules)} == set()

"""Lines that PEFT printed in public: what trains, of how much; each is met, or the row says why it is another count."""

import json
from pathlib import Path

import pytest

from loralens.core.answer.answers import parameters_answer
from loralens.core.errors import LoraLensError

PATH = Path(__file__).parents[1] / "oracles" / "printed-counts.jsonl"
ROWS = [json.loads(line) for line in PATH.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row['model'][:30]}" for number, row in enumerate(ROWS)])
def test_the_printed_line_is_met_or_explained(row):
    try:
        found = parameters_answer(row["request"])["parameters"]
        same = all(
            wanted is None or found[own] == wanted
            for own, wanted in (("trainable", row["printed"].get("trainable")), ("total", row["printed"].get("all")))
        )
    except LoraLensError as refused:
        assert refused.hint
        same = False
    assert same == (not row["differs"])


def test_most_lines_are_met():
    assert sum(not row["differs"] for row in ROWS) >= 20

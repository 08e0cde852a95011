"""What people told of a learner beside an engine, and what is answered: docs/accuracy/engine-reports.jsonl."""

import json
from pathlib import Path

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.trainers.check import check_answer

DOCS = Path(__file__).parents[2] / "docs"
REPORTS = [
    json.loads(line) for line in (DOCS / "accuracy" / "engine-reports.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("row", REPORTS, ids=lambda row: row["id"])
def test_the_answer_is_what_was_seen(row):
    if "file" in row:
        estimate = check_answer({"files": {"run.sh": row["file"]}, "gpu": row["gpu"]})["estimate"]
    else:
        estimate = memory_answer({**row["request"], "gpu": row["gpu"]})["estimates"][0]
    (fit,), needed = estimate["fits"], estimate["peak"]["needed_bytes"]
    assert fit["verdict"] == row["says"]
    if "measured_bytes" in row:
        low, high = needed
        assert low <= row["measured_bytes"] <= high
    for card in estimate["iteration"]["cards"]:
        assert card["utilization"] == row["share"]
    page = (DOCS / "accuracy-objectives.md").read_text(encoding="utf-8")
    needs = [size / 2**30 for size in needed]
    assert f"| [{row['id']}]" in page
    assert f"| {needs[0]:.1f} to {needs[1]:.1f} |" in page

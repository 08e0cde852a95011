"""Published runs of other objectives: the table in docs/accuracy-objectives.md is what the code says now."""

from pathlib import Path

from loralens.core.answer.estimate import estimate_model
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.validation.rows import read_rows

DOCS = Path(__file__).parents[2] / "docs"
GIB = 2**30


def test_the_table_is_of_today():
    page = (DOCS / "accuracy-objectives.md").read_text(encoding="utf-8")
    rows = read_rows((DOCS / "accuracy" / "objective-runs.jsonl").read_text(encoding="utf-8").splitlines())
    assert len(rows) == 4
    for row in rows:
        found = estimate_model(resolve(row.data["model"]), row.data["method"], Recipe.from_mapping(row.data["recipe"]))
        low, _, high = (size / GIB for size in found.overhead.device)
        computed = found.allocated_bytes / GIB
        line = f"| {row.id} | {computed:.2f} | {low:.1f} to {high:.1f} | {row.measured_bytes / GIB:.2f} |"
        assert line in page
        assert ("inside" in page.split(line)[1].splitlines()[0]) == (low <= row.measured_bytes / GIB <= high)

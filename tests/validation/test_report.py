"""Published runs: the table in docs/accuracy.md is what the code says now, and it stays as good as it is."""

import json
import statistics
from pathlib import Path

import pytest

from loralens.core.errors import InvalidInput
from loralens.validation import report
from loralens.validation.rows import judge, read_rows

DOCS = Path(__file__).parents[2] / "docs"
RUNS = DOCS / "accuracy" / "published-runs.jsonl"


@pytest.fixture(scope="module")
def outcomes():
    return [judge(row) for row in read_rows(RUNS.read_text(encoding="utf-8").splitlines())]


def chosen(outcomes, **wanted):
    found = [o for o in outcomes if o.estimate is not None]
    for name, values in wanted.items():
        if name == "strategy":
            found = [o for o in found if o.row.data["recipe"]["parallelism"]["strategy"] in values]
        elif name == "confidence":
            found = [o for o in found if o.row.data["confidence"] in values]
        else:
            found = [o for o in found if getattr(o.row, name) in values]
    return found


def test_page_is_up_to_date(outcomes):
    page = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    again = report.markdown(outcomes, RUNS.name)
    assert page == again, (
        "regenerate: loralens validate docs/accuracy/published-runs.jsonl --markdown > docs/accuracy.md"
    )
    assert "not explained" not in page


def test_allocated_on_one_gpu(outcomes):
    errors = sorted(
        abs(o.error)
        for o in chosen(
            outcomes, metric=("allocated",), stack=("huggingface",), strategy=("none",), confidence=("high",)
        )
    )
    assert len(errors) >= 30
    assert statistics.median(errors) <= 0.005
    assert errors[int(0.9 * len(errors))] <= 0.03


def test_allocated_on_several_gpus(outcomes):
    errors = [
        abs(o.error)
        for o in chosen(
            outcomes, metric=("allocated",), stack=("huggingface",), strategy=("fsdp", "ddp", "zero2", "zero3")
        )
    ]
    assert len(errors) >= 35
    assert statistics.median(errors) <= 0.08


def test_bands_hold_the_rows(outcomes):
    banded = chosen(outcomes, metric=("reserved", "device", "unclear"))
    assert len(banded) >= 80
    assert sum(o.inside for o in banded) / len(banded) >= 0.85


def test_workspaces_of_the_card_are_counted(outcomes):
    first = chosen(outcomes, metric=("allocated",), stack=("huggingface",))[0]
    assert first.predicted_bytes - first.estimate.allocated_bytes == 2 * 8_519_680


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("not json", "runs"),
        ("[1]", "runs"),
        (json.dumps({"recipe": {}}), "peak_bytes"),
        (json.dumps({"recipe": {}, "peak_bytes": True}), "peak_bytes"),
        (json.dumps({"recipe": 3, "peak_bytes": 5}), "recipe"),
    ],
)
def test_malformed_rows_are_refused(line, field):
    with pytest.raises(InvalidInput) as caught:
        read_rows([line])
    assert caught.value.field == field


def test_rows_that_cannot_be_estimated_say_why():
    row = {"id": "x", "model": "no-such-model", "method": "lora", "recipe": {}, "metric": "allocated", "peak_bytes": 1}
    outcome = judge(read_rows([json.dumps(row)])[0])
    assert outcome.estimate is None
    assert "no-such-model" in outcome.refused
    assert report.as_json([outcome])["rows"][0]["predicted_bytes"] is None

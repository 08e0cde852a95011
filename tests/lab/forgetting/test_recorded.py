"""The recorded runs are whole, labelled, small, and say what today's code would say of their numbers."""

from __future__ import annotations

import json
from datetime import datetime
from importlib import resources
from typing import Any

import pytest

from loralens.lab.forgetting.recorded import collect, recorded_runs, rounded
from loralens.lab.forgetting.sentences import findings


def test_both_budgets_are_recorded_and_small() -> None:
    assert [run["result"]["budget"] for run in recorded_runs()] == ["quick", "full"]
    folder = resources.files("loralens.lab.forgetting").joinpath("recorded")
    for entry in folder.iterdir():
        if entry.name.endswith(".json"):
            assert len(entry.read_bytes()) < 300_000


@pytest.mark.parametrize("index", [0, 1])
def test_each_is_labelled_and_complete(index: int) -> None:
    run = recorded_runs()[index]
    result = run["result"]
    assert datetime.fromisoformat(result["date"]).tzinfo is not None
    assert {"processor", "cores", "torch", "python", "loralens"} <= result["machine"].keys()
    main = [p for p in run["points"] if p["phase"] == "main"]
    steps = [s for s in run["plan"]["evaluation_steps"] if s <= result["summary"]["step"]]
    assert len(main) == len(run["plan"]["arms"]) * len(run["plan"]["seeds"]) * len(steps)
    assert result["checks"]["base_unchanged"] and result["checks"]["rank_zero_is_base"]
    assert result["stopped_early"] is (result["summary"]["step"] < run["plan"]["steps"])


@pytest.mark.parametrize("index", [0, 1])
def test_sentences_follow_from_the_recorded_numbers(index: int) -> None:
    result = recorded_runs()[index]["result"]
    assert findings(result) == result["findings"]


def test_numbers_keep_six_digits() -> None:
    assert rounded({"a": [1.23456789, 7, None, "x", True]}) == {"a": [1.23457, 7, None, "x", True]}


def test_progress_is_dropped(events: list[dict[str, Any]]) -> None:
    record = collect(events)
    assert set(record) == {"plan", "points", "choice", "result"}
    assert len(record["points"]) == sum(e["type"] == "point" for e in events)
    assert json.loads(json.dumps(record)) == record

"""The recorded grid is what the generator asks for, adds up, and is not stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from loralens.lab.trace import grid, grid_cases

FILE = Path(__file__).parents[2] / "oracles" / "traced-grid.jsonl"
LINES: dict[str, dict[str, Any]] = {line["name"]: line for line in grid.read(FILE)}
# one of each kind of step, over different families
TRACED_AGAIN = (
    "bert-base-uncased/full-bf16",
    "deepseek-v2-lite/lora-few-no-autocast",
    "falcon-7b/full-checkpointing-foreach",
    "gpt2/qlora-checkpointing",
    "llama-3.2-1b/full-step-in-backward-checkpointing",
    "mixtral-8x7b/full-fp32-autocast",
    "qwen2.5-0.5b/dora-many-checkpointing",
    "qwen2.5-0.5b/full-fp16-scaler",
    "qwen2.5-0.5b/int8-lora-checkpointing",
    "t5-base/lora-many",
    "whisper-large-v3/lora-many",
)


def test_every_generated_case_is_recorded_with_its_request():
    wanted = dict(grid_cases.cases())
    assert {name: line["request"] for name, line in LINES.items()} == wanted
    assert len(wanted) >= 300
    assert all("expected" in line for line in LINES.values())
    assert FILE.stat().st_size < 1_500_000


def test_records_add_up():
    for name, line in LINES.items():
        expected = line["expected"]
        assert sum(expected["categories"].values()) == expected["peak_allocated_bytes"], name
        assert max(expected["phase_peaks"].values()) == expected["peak_allocated_bytes"], name
        assert expected["phase_peaks"][expected["phase"]] == expected["peak_allocated_bytes"], name
        assert 0 < expected["trainable"] <= expected["total"], name


@pytest.mark.parametrize("name", TRACED_AGAIN)
def test_records_are_not_stale(name):
    assert grid.trace_one(name, LINES[name]["request"])["expected"] == LINES[name]["expected"]


def test_a_file_is_continued(tmp_path, monkeypatch):
    """Cases that are there with the same request stay; changed, refused and missing ones are traced."""
    requests = {
        "a": {"config": {}, "method": "full", "recipe": {}},
        "b": {"config": {}, "method": "full", "recipe": {}},
    }
    old = [
        {"name": "a", "request": {**requests["a"], "method": "lora"}, "expected": {"old": 1}},
        {"name": "b", "request": requests["b"], "expected": {"kept": 1}},
        {"name": "gone", "request": {}, "expected": {}},
    ]
    path = tmp_path / "grid.jsonl"
    path.write_text("".join(grid.as_line(entry) + "\n" for entry in old), encoding="utf-8")
    monkeypatch.setitem(grid.GRIDS, "first", lambda: iter(requests.items()))
    held, traced = grid.run(path, 1)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (held, traced) == (2, 1)
    assert [line["name"] for line in lines] == ["a", "b"]
    assert "config.model_type is missing" in lines[0]["refused"] and lines[1]["expected"] == {"kept": 1}

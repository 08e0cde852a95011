"""Models of the Hub, told anew: their recorded steps are not stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from loralens.lab.trace import grid
from loralens.lab.trace.build import read_config
from loralens.lab.trace.hub import config_class, model_class

FILE = Path(__file__).parents[2] / "oracles" / "traced-media.jsonl"
LINES = {line["name"]: line for line in map(json.loads, FILE.read_text("utf-8").splitlines())}


@pytest.mark.parametrize(
    "name",
    [
        "intern-s1-mini/lora-everywhere-checkpointing",
        "yi-vl-6b/full-tower-frozen",
        "kimi-vl-narrow/lora-language",
        "dots-ocr/full-tower-frozen",
    ],
)
def test_records_are_not_stale(name: str) -> None:
    assert grid.trace_one(name, LINES[name]["request"])["expected"] == LINES[name]["expected"]


def test_what_transformers_has_is_not_told_anew() -> None:
    llava = LINES["llava-1.5-7b/full"]["request"]["config"]
    assert config_class("llava") is None and model_class(read_config(llava)) is None
    assert model_class(read_config({**llava, "is_yi_vl_derived_model": True})) is not None

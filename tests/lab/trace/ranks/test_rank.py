"""One rank traced anew: what the oracle of generated ranks says is what the real libraries do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from loralens.lab.trace.ranks.cases import cases
from loralens.lab.trace.ranks.grid import trace_one

LINES = (Path(__file__).parents[3] / "oracles" / "traced-grid-ranks.jsonl").read_text(encoding="utf-8").splitlines()
RECORDED = {line["name"]: line for line in map(json.loads, LINES)}


def test_the_oracle_holds_every_generated_case():
    assert {name: line["request"] for name, line in RECORDED.items()} == dict(cases())


@pytest.mark.parametrize(
    "name", ["llama-3.1-8b/hsdp-full-ckpt-mp", "qwen2.5-7b/tp2-fsdp2-1-whole", "mixtral-8x7b/ep2-of-4-lora-ckpt"]
)
def test_a_rank_is_traced_as_it_was(name):
    assert trace_one(name, RECORDED[name]["request"]) == RECORDED[name]

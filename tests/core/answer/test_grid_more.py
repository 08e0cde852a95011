"""Traced steps of the families that the first grid leaves out: the engine against the second method, to 0.05 %.

tests/oracles/traced-more.jsonl is written by `python -m loralens.lab.trace.grid FILE --grid more`.
"""

import json
from pathlib import Path

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "oracles" / "traced-more.jsonl").read_text(encoding="utf-8").splitlines()
]
FAMILIES = sorted({case["request"]["config"]["model_type"] for case in CASES})


def test_enough_cases() -> None:
    assert len(CASES) >= 200
    assert all("expected" in case for case in CASES)


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_phase_and_peak_are_the_traced_ones(family: str) -> None:
    for case in CASES:
        request, expected = case["request"], case["expected"]
        if request["config"]["model_type"] != family:
            continue
        own = estimate_model(
            resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"])
        )
        assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"]), case[
            "name"
        ]
        assert own.phase == expected["phase"], case["name"]
        assert own.allocated_bytes == pytest.approx(expected["peak_allocated_bytes"], rel=5e-4), case["name"]
        assert sum(own.breakdown.values()) == own.allocated_bytes

"""Hundreds of traced steps, every family and switch: the engine against the second method.

tests/oracles/traced-grid.jsonl is written by `python -m loralens.lab.trace.grid`; tests/lab/trace traces some of it anew.
"""

import json
import statistics
from pathlib import Path

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

GRID = Path(__file__).parents[2] / "oracles" / "traced-grid.jsonl"


@pytest.fixture(scope="module")
def compared():
    found = []
    for line in GRID.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        request = case["request"]
        own = estimate_model(
            resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"])
        )
        found.append((case["name"], own, case["expected"]))
    return found


def error(own, expected):
    return abs(own.allocated_bytes / expected["peak_allocated_bytes"] - 1)


def test_enough_cases(compared):
    assert len(compared) >= 300


def test_counts_are_equal(compared):
    for name, own, expected in compared:
        assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"]), name


def test_phases_agree(compared):
    assert [name for name, own, expected in compared if own.phase != expected["phase"]] == []


def test_every_peak_agrees(compared):
    """No open difference is left: what remains are single numbers and tables of a few hundred bytes."""
    beyond = {name: error(own, expected) for name, own, expected in compared if error(own, expected) > 0.000_1}
    assert beyond == {}
    assert statistics.median(error(own, expected) for _, own, expected in compared) <= 0.000_001


def test_encoders_pictures_sound_and_llama_4(compared):
    """Nearly two hundred steps of models that are no plain decoders: all methods, optimizers and switches."""
    found = [row for row in compared if row[0].startswith(("t5", "flan-t5", "whisper", "vit", "llama-4"))]
    assert len(found) >= 185
    assert [name for name, own, expected in found if own.phase != expected["phase"]] == []
    assert statistics.median(error(own, expected) for _, own, expected in found) <= 0.000_001


def test_categories_sum_to_the_peak(compared):
    for name, own, _ in compared:
        assert sum(own.breakdown.values()) == own.allocated_bytes, name
        assert min(own.breakdown.values()) >= 0, name

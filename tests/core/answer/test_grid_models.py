"""Traced steps of the families walked last: the engine against the second method, to a hundredth of a percent.

tests/oracles/traced-models.jsonl is written by `python -m loralens.lab.trace.grid FILE --grid models`, traced-text.jsonl by the
same with `--grid text`. Hybrids ran transformers' own PyTorch code there. traced-remote.jsonl: models whose code lies beside their
weights, retold in lab/trace/hub and written by the same with `--grid hub`.
"""

import json
from pathlib import Path

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.errors import LoraLensError
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

ORACLES = Path(__file__).parents[2] / "oracles"
CASES = [
    json.loads(line)
    for name in ("traced-models", "traced-text", "traced-remote")
    for line in (ORACLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
]
FAMILIES = sorted({case["request"]["config"]["model_type"] for case in CASES})


def answer(request):
    return estimate_model(resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_phase_and_peak_are_the_traced_ones(family: str) -> None:
    for case in CASES:
        request, name = case["request"], case["name"]
        if request["config"]["model_type"] != family:
            continue
        if "refused" in case:
            with pytest.raises(LoraLensError):
                answer(request)
            continue
        own, expected = answer(request), case["expected"]
        assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"]), name
        assert own.phase == expected["phase"], name
        assert own.allocated_bytes == pytest.approx(expected["peak_allocated_bytes"], rel=1e-4), name
        assert sum(own.breakdown.values()) == own.allocated_bytes

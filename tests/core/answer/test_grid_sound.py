"""Traced steps of models that hear, tower and all: the engine against the second method, to a hundredth of a percent.

tests/oracles/traced-sound.jsonl is written by `python -m loralens.lab.trace.grid FILE --grid sound`.
"""

import json
from pathlib import Path

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.answer.estimate import estimate_model
from loralens.core.errors import InvalidInput
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

ORACLES = Path(__file__).parents[2] / "oracles"
CASES = [json.loads(line) for line in (ORACLES / "traced-sound.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_counts_phases_and_peaks_are_the_traced_ones(case):
    request, expected = case["request"], case["expected"]
    own = estimate_model(resolve(config=request["config"]), request["method"], Recipe.from_mapping(request["recipe"]))
    assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"])
    assert own.phase == expected["phase"]
    assert own.phases == pytest.approx(expected["phase_peaks"], rel=1e-4)
    assert sum(own.breakdown.values()) == own.allocated_bytes


def said(name="voxtral", **words):
    (config, *_) = (case["request"]["config"] for case in CASES if case["name"].startswith(name))
    body = {"config": config, "method": "lora", "recipe": words}
    return memory_answer(body)["estimates"][0]["assumptions"]


def test_what_is_heard_is_said():
    assert any(line.startswith("text alone") and "audio_seconds=30" in line for line in said())
    heard = [line for line in said(audio_seconds=61) if "s of sound" in line]
    assert heard == [
        "61 s of sound per sample, in clips of 30 s (3): 4,500 places in the tower, 1,125 tokens of the sequence"
    ]
    assert any("more tokens than its sequence has" in line for line in said(audio_seconds=61, sequence_length=512))
    assert any("image" in line and "without effect" in line for line in said(images=1))


def test_what_is_heard_and_seen_is_said_apart():
    lines = said("qwen2.5-omni", audio_seconds=30, images=1, image_size=[252, 364])
    assert "30 s of sound per sample: 1,500 places in the tower, 750 tokens of the sequence" in lines
    assert any(line.startswith("1 picture of 252 × 364 pixels per sample: 468 patches") for line in lines)
    assert "30 s of sound per sample: 390 places in the tower, 390 tokens of the sequence" in said(
        "qwen3-omni", audio_seconds=30
    )
    assert "12 s of sound per sample: 1,500 places in the tower, 300 tokens of the sequence" in said(
        "qwen2-audio", audio_seconds=12
    )
    assert any("beyond 30 s" in line for line in said("qwen2-audio", audio_seconds=31))
    assert any("cut off" in line for line in said("qwen3-omni", audio_seconds=301))


def test_all_linear_is_refused_where_peft_refuses_it():
    with pytest.raises(InvalidInput, match="PEFT refuses all-linear") as problem:
        config = next(case["request"]["config"] for case in CASES if case["name"].startswith("qwen3-omni"))
        memory_answer({"config": config, "method": "lora", "recipe": {"lora": {"target_modules": "all-linear"}}})
    assert problem.value.field == "lora.target_modules"

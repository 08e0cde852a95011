"""Traced steps of multimodal models, tower and all: the engine against the second method, to a hundredth of a percent.

tests/oracles/traced-media.jsonl is written by `python -m loralens.lab.trace.grid FILE --grid media`.
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
CASES = [json.loads(line) for line in (ORACLES / "traced-media.jsonl").read_text(encoding="utf-8").splitlines()]


def estimated(case, **words):
    request = case["request"]
    recipe = Recipe.from_mapping({**request["recipe"], **words})
    return estimate_model(resolve(config=request["config"]), request["method"], recipe)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_counts_phases_and_peaks_are_the_traced_ones(case):
    own, expected = estimated(case), case["expected"]
    assert (own.total_parameters, own.trainable_parameters) == (expected["total"], expected["trainable"])
    assert own.phase == expected["phase"]
    assert own.phases == pytest.approx(expected["phase_peaks"], rel=1e-4)
    assert sum(own.breakdown.values()) == own.allocated_bytes


def said(model, **recipe):
    return memory_answer({"model": model, "method": "lora", "recipe": recipe})["estimates"][0]


def test_without_a_picture_the_answer_says_what_is_assumed_and_how_to_change_it():
    plain = said("qwen2.5-vl-3b")
    assert any(line.startswith("text alone") and "images=1" in line for line in plain["assumptions"])
    assert plain["parameters"]["total"] - plain["parameters"]["trainable"] == 3_754_622_976
    pictured = said("qwen2.5-vl-3b", images=1, image_size="448x672")
    assert any(
        line.startswith("1 picture of 448 × 672 pixels per sample") and "384" in line
        for line in pictured["assumptions"]
    )
    assert pictured["peak"]["allocated_bytes"] > plain["peak"]["allocated_bytes"]


def test_pictures_without_a_size_are_refused_and_those_without_a_place_are_remarked_upon():
    with pytest.raises(InvalidInput, match="image_size is missing") as problem:
        said("qwen2.5-vl-3b", images=1)
    assert problem.value.field == "image_size"
    short = said("qwen2.5-vl-3b", images=1, image_size=[448, 672], sequence_length=256)
    assert any("more tokens than its sequence has" in line for line in short["assumptions"])


def test_pictures_for_a_model_of_text_alone_change_nothing_and_that_is_said():
    idle = said("qwen2.5-0.5b", images=1, image_size=[448, 672])["without_effect"]
    assert {"words": ["images", "image_size"], "reason": "the model as it is counted takes text alone"} in idle
    assert said("qwen2.5-0.5b", images=1)["peak"] == said("qwen2.5-0.5b")["peak"]


def test_a_plan_holds_for_other_batches_and_lengths():
    case = next(case for case in CASES if case["name"].endswith("/lora-everywhere"))
    known = estimated(case)
    walked = estimated(case, micro_batch_size=3, sequence_length=3000)
    assert known.plan.validity.covers(3, 3000, 16)
    assert known.plan.peaks(3, 3000, 16)[2] == walked.allocated_bytes


def test_a_plan_of_sparse_attention_holds_for_lengths_of_as_many_blocks():
    case = next(case for case in CASES if case["name"] == "minimax-m3-narrow/full")
    known = estimated(case)  # 1,100 tokens are 18 blocks of 64
    assert [known.plan.validity.covers(1, length, 16) for length in (1084, 1100, 1148, 1164)] == [
        False,
        True,
        True,
        False,
    ]
    assert known.plan.peaks(1, 1148, 16)[2] == estimated(case, sequence_length=1148).allocated_bytes


def test_a_preset_freezes_the_tower_where_its_trainer_does():
    recipe = {"images": 1, "image_size": [448, 672]}
    assert said("qwen2.5-vl-3b", **recipe, trainer="llama-factory")["recipe"]["freeze_tower"] == "tower+projector"
    assert said("qwen2.5-vl-3b", **recipe, trainer="trl")["recipe"]["freeze_tower"] == "none"
    assert said("qwen2.5-vl-3b", trainer="llama-factory")["recipe"]["freeze_tower"] == "none"


@pytest.mark.parametrize("name", ["muse-glimmer-narrow", "lfm2-vl-1.6b"])
def test_a_packed_layer_on_the_patches_is_refused_with_the_way_out(name):
    case = next(case for case in CASES if case["name"] == f"{name}/qlora-checkpointing")
    with pytest.raises(InvalidInput, match="packed dtype") as problem:
        estimated(case, quantization={"type": "nf4"})
    assert problem.value.hint == "try skip_modules=lm_head,model.vision_tower"

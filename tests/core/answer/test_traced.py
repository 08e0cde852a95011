"""A traced plan in a config.json: read as it was written, within what was traced, and refused with a way out beyond that."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from loralens.core.answer.answers import memory_answer, parameters_answer, plan_answer
from loralens.core.answer.plan import plan_for
from loralens.core.answer.traced import covered, plan_row
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.model import given, resolve
from loralens.core.question.recipe import Recipe
from loralens.core.question.traced import TRACED
from loralens.planner.fit import batch_by_length, fit_answer, pace_of
from loralens.planner.sweep import sweep_answer

WORDS: dict[str, Any] = {"micro_batch_size": 2, "sequence_length": 512, "lora": {"target_modules": "all-linear"}}


def _config() -> dict[str, Any]:
    """A file as the lab writes it, whose plan is a walked one, for a model type that nobody knows."""
    rows = []
    for method in ("full", "lora"):
        plan = plan_for(resolve("qwen2.5-0.5b"), method, Recipe.from_mapping(WORDS))
        row = plan_row(plan, targets_open=True)
        row["valid"] = {"micro_batch_size": [2, 64], "sequence_length": [128, 8192], "rank": [4, 256]}
        row["remainders"] = {"sequence_length": [8, 0]}
        rows.append(row)
    traced = {"format": 1, "source": "torch 2.13.0", "parameters": 494_032_768, "plans": rows}
    return json.loads(json.dumps({"model_type": "of-tomorrow", "vision_config": {}, TRACED: traced}))


CONFIG = _config()


@pytest.mark.parametrize("setting", [(2, 512, 8), (3, 1024, 16), (64, 8192, 256)])
def test_it_gives_what_the_plan_gave_that_was_written(setting: tuple[int, int, int]) -> None:
    batch, length, rank = setting
    words = {**WORDS, "micro_batch_size": batch, "sequence_length": length}
    words["lora"] = {**WORDS["lora"], "rank": rank}
    answer, known = (
        memory_answer({subject: value, "methods": ["full", "lora"], "recipe": words})
        for subject, value in (("config", CONFIG), ("model", "qwen2.5-0.5b"))
    )
    assert answer["comparison"] == known["comparison"]
    assert answer["model"]["parameters"] == known["model"]["parameters"] and answer["model"]["left_out"] == []
    for ours, theirs in zip(answer["estimates"], known["estimates"], strict=True):
        assert (ours["basis"], theirs["basis"]) == ("traced", "computed")
        assert all(term["source"] == "traced: torch 2.13.0" for term in ours["terms"])
        for name in ("breakdown", "parameters", "phases", "storage"):
            assert ours[name] == theirs[name]
        assert memory_answer({"config": CONFIG, "method": ours["method"], "recipe": ours["recipe"]})["estimates"] == [
            ours
        ]


def test_every_answer_knows_it() -> None:
    body = {"config": CONFIG, "recipe": WORDS}
    assert [row["method"] for row in memory_answer(body)["estimates"]] == ["full", "lora"]
    assert [plan["method"] for plan in plan_answer(body)["plans"]] == ["full", "lora"]
    assert parameters_answer({**body, "method": "lora"})["parameters"]["trainable"] == 4_399_104
    assert parameters_answer({**body, "method": "qlora"})["note"] == "qlora was not traced"
    swept = sweep_answer(
        {**body, "method": "lora", "sweep": {"micro_batch_size": [2, 3, 4], "sequence_length": [128, 256]}}
    )
    assert swept["shape"] == [3, 2]
    wider = {"micro_batch_size": [1, 2, 100], "sequence_length": [64, 128, 129, 16_384]}
    swept = sweep_answer({**body, "method": "lora", "recipe": {**WORDS, "sequence_length": 64}, "sweep": wider})
    assert [axis["values"] for axis in swept["variables"]] == [[2], [128]]
    largest = fit_answer({**body, "method": "lora", "gpu": "rtx-4090"})["largest"]
    known = fit_answer({"model": "qwen2.5-0.5b", "method": "lora", "recipe": WORDS, "gpu": "rtx-4090"})["largest"]
    assert largest["micro_batch_size"]["value"] == known["micro_batch_size"]["value"] < 64
    assert largest["sequence_length"]["value"] == known["sequence_length"]["value"] // 8 * 8
    assert (largest["rank"]["value"], largest["rank"]["bounded_by"]) == (256, "range")


@pytest.mark.parametrize(
    ("words", "said", "field"),
    [
        ({"sequence_length": 16_384}, "the plan holds for", "recipe.sequence_length"),
        ({"sequence_length": 513}, "sequence_length = 0 modulo 8", "recipe.sequence_length"),
        ({"micro_batch_size": 1}, "micro_batch_size 2 to 64", "recipe.sequence_length"),
        ({"gradient_checkpointing": False}, "made with True", "recipe.gradient_checkpointing"),
        ({"lora": {"target_modules": ["q_proj"]}}, "was not traced", "recipe.target_modules"),
    ],
)
def test_beyond_what_was_traced_it_says_so(words: dict[str, Any], said: str, field: str) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        memory_answer({"config": CONFIG, "method": "lora", "recipe": {**WORDS, **words}})
    assert refused.value.field == field and refused.value.hint


def test_what_needs_the_operators_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not for qlora"):
        memory_answer({"config": CONFIG, "method": "qlora", "recipe": WORDS})
    with pytest.raises(InvalidInput, match="simulated"):
        memory_answer({"config": CONFIG, "method": "lora", "recipe": WORDS, "allocator": "simulated"})


def test_the_values_that_a_plan_covers() -> None:
    traced = given(CONFIG).traced
    assert traced is not None
    recipe = Recipe.from_mapping(WORDS)
    assert covered(traced, "lora", recipe, "micro_batch_size") == range(2, 65)
    assert covered(traced, "lora", recipe, "sequence_length") == range(128, 8193, 8)
    assert not covered(traced, "lora", Recipe.from_mapping({**WORDS, "sequence_length": 100}), "micro_batch_size")


def _changed(*path: Any, to: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    at = config[TRACED]
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = to
    return config


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", TRACED: 3},
        _changed("format", to=2),
        _changed("plans", to=[]),
        _changed("plans", 0, "moments", to=[["forward", "x", [0, 99_999]]]),
        _changed("plans", 0, "sizes", 0, to=[[77, 1]]),
        _changed("plans", 0, "sizes", 0, to=[[0, 1.5]]),
        _changed("plans", 0, "parameters", 0, 1, to=[2**40, 2**40]),
        _changed("plans", 0, "labels", 0, to=["elsewhere", "x"]),
        _changed("plans", 0, "valid", to={}),
        _changed("plans", 0, "remainders", to={"rank": "x"}),
        _changed("plans", 0, "timeline", to=[]),
        _changed("plans", 0, "parameters", to=[[1]]),
        _changed("plans", 0, "recipe", to={"rank_of": 3}),
    ],
)
def test_a_file_that_nobody_wrote_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        memory_answer({"config": config, "method": "full", "recipe": WORDS})


def test_time_and_lengths_that_were_not_traced_stay_unknown() -> None:
    body = {"config": CONFIG, "method": "lora", "recipe": WORDS, "gpu": "rtx-4090"}
    assert fit_answer({**body, "tokens": 1_000_000})["time"] is None
    assert [length for length, _ in batch_by_length(body, (64, 512, 16_384))] == [512]
    with pytest.raises(UnsupportedArchitecture, match="not its operations"):
        pace_of(body, 1_000_000)


def test_a_value_too_small_to_be_traced_is_not_said_to_be_too_large() -> None:
    """Batches from 2 on were traced: where 2 do not fit, 1 may."""
    body = {"config": CONFIG, "method": "lora", "gpu": "12GB", "recipe": {**WORDS, "sequence_length": 8192}}
    row = fit_answer(body)["largest"]["micro_batch_size"]
    assert (row["value"], row["bounded_by"]) == (None, "range")
    assert [length for length, _ in batch_by_length(body, (1024, 8192))] == [1024]

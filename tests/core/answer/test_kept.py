"""What is kept is bounded in bytes, and is found by what an answer rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from loralens.core import catalogue
from loralens.core.answer import plan, reserved
from loralens.core.answer.kept import Kept, KeptByModel
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.model import resolve
from loralens.core.question.reading import NotedConfig, found
from loralens.core.question.recipe import Recipe


def llama(**other: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(dict(catalogue.model("7B").config))), "num_hidden_layers": 3, **other}


def test_the_oldest_go_when_there_is_no_room() -> None:
    kept: Kept[bytes] = Kept(1_000, len)
    for index in range(10):
        kept.put(index, bytes(200))
    assert kept.bytes <= 1_000
    assert kept.get(0) is None
    assert kept.get(9) is not None
    kept.put("whale", bytes(2_000))
    assert kept.get("whale") is None
    assert kept.bytes <= 1_000


def test_a_config_is_found_by_what_was_read_of_it() -> None:
    made: list[Mapping[str, Any]] = []

    def compute(config: Mapping[str, Any]) -> int:
        made.append(config)
        return int(config["width"]) + (int(config["inner"]["depth"]) if "inner" in config else 0)

    kept: KeptByModel[int] = KeptByModel(10_000, lambda _: 100, lambda value, setting: True)

    def ask(**config: Any) -> int:
        return kept.find(resolve(config={"model_type": "any", **config}), "question", None, compute)

    assert ask(width=3) == ask(width=3, unread=[1] * 1_000) == 3
    assert len(made) == 1
    assert ask(width=4) == 4
    assert ask(width=True) == 1, "true is no width of 1 that was asked for before"
    assert ask(width=3, inner={"depth": 5, "unread": 1}) == ask(width=3, inner={"unread": 2, "depth": 5}) == 8
    assert ask(width=3) == 3
    assert len(made) == 4


def test_iteration_and_length_are_readings_too() -> None:
    reading = NotedConfig({"labels": {"a": 1, "b": 2}, "names": {"x": 1}})
    assert len(reading["labels"]) == 2
    assert list(reading["names"]) == ["x"]
    looks = reading.looks
    assert found({"labels": {"c": 0, "d": 0}, "names": {"x": 2}}, looks) == found(reading, looks)
    assert found({"labels": {"c": 0}, "names": {"x": 2}}, looks) != found(reading, looks)
    assert found({"labels": {"c": 0, "d": 0}, "names": {"y": 2}}, looks) != found(reading, looks)


FAMILIES = {entry.family: entry for entry in catalogue.models()}


@pytest.mark.parametrize("entry", FAMILIES.values(), ids=lambda entry: entry.family)
def test_unknown_keys_reach_no_key(entry: catalogue.ModelEntry) -> None:
    config = json.loads(json.dumps(dict(entry.config)))
    recipe = Recipe.from_mapping({})
    plan._plans.clear()
    try:
        first = plan.plan_for(resolve(config=config), "full", recipe)
    except UnsupportedArchitecture:
        return  # only counted: there is no plan
    held = plan._plans.bytes
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        part["an unknown key"] = [1] * 50
    assert plan.plan_for(resolve(config=config), "full", recipe) is first
    assert plan._plans.bytes == held
    config["padded_vocab_size" if entry.family == "chatglm" else "vocab_size"] = 97
    for inner in (value for value in config.values() if isinstance(value, dict)):
        inner["vocab_size"] = 97
    if entry.family != "vit":
        assert plan.plan_for(resolve(config=config), "full", recipe) is not first, "the vocabulary is read"


def test_plans_of_many_questions_stay_within_their_room() -> None:
    model = resolve(config=llama())
    for batch in range(1, 40):  # this loss has a plan for every number of tokens
        plan.plan_for(model, "lora", Recipe.from_mapping({"loss": "fused", "micro_batch_size": batch}))
    assert plan._plans.bytes <= plan.MOST_BYTES
    many = plan._plans._kept
    assert sum(len(values) for values, _ in many._values.values()) <= 8 * len(many)


def test_recordings_too() -> None:
    model = resolve(config=llama())
    for rank in (4, 8):
        reserved.simulated(model, "lora", Recipe.from_mapping({"lora": {"rank": rank}}))
    assert 0 < reserved._recordings.bytes <= reserved.MOST_BYTES


@pytest.mark.parametrize(
    "config",
    [
        {"x": {1, 2}},
        {str(index): 1 for index in range(1_001)},
        {"inner": {str(index): 1 for index in range(1_001)}},
    ],
    ids=["no JSON", "many keys", "many keys inside"],
)
def test_what_is_no_config_is_refused_before_it_is_read(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        resolve(config={"model_type": "llama", **config})


def test_a_config_nested_too_deeply_is_refused() -> None:
    config: Any = 1
    for _ in range(10_000):
        config = {"x": config}
    with pytest.raises(InvalidInput):
        resolve(config=config)

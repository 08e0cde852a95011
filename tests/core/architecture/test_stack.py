"""Cutting a stack into runs of repeating units."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loralens.core.answer.plan import compile_plan
from loralens.core.architecture import stack
from loralens.core.architecture.causal import Root
from loralens.core.architecture.module import Module
from loralens.core.architecture.stack import Placed, runs
from loralens.core.question.accelerator import BEFORE_8
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe


def placed(pattern):
    kinds = {}
    return [Placed(kinds.setdefault(letter, Module()), False) for letter in pattern]


def cut(pattern):
    layers = placed(pattern)
    return [(run.start, len(run.unit), run.repeat) for run in runs(layers)]


def test_equal_layers_are_one_run():
    assert cut("a" * 32) == [(0, 1, 32)]


def test_a_pattern_repeats():
    assert cut("aaaaab" * 6) == [(0, 6, 6)]


def test_leading_layers_of_another_kind():
    assert cut("aaa" + "b" * 20)[-1] == (3, 1, 20)
    assert sum(length * repeat for _, length, repeat in cut("aaa" + "b" * 20)) == 23


def test_every_layer_is_in_exactly_one_run():
    for pattern in ("a", "ab", "abab" * 4 + "a", "abcabc" + "d" * 9 + "ab" * 7, "a" * 5 + "b" * 5):
        position = 0
        for start, length, repeat in cut(pattern):
            assert start == position
            position += length * repeat
        assert position == len(pattern)


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 500,
}
CONFIGS = {
    "one layer over and over": {"model_type": "llama", "num_hidden_layers": 9, **SMALL},
    "two in turn": {"model_type": "gemma2", "num_hidden_layers": 14, "head_dim": 16, "sliding_window": 64, **SMALL},
}
RECIPES = {
    "checkpointed": {},
    "kept": {"gradient_checkpointing": False},
    "older checkpointing": {"checkpoint_reentrant": True},
    "first layer without rotary gradients": {
        "gradient_checkpointing": False,
        "lora": {"target_modules": ["v_proj", "down_proj"]},
    },
    "fsdp": {"parallelism": {"gpus": 4, "strategy": "fsdp"}},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_units_that_are_not_walked_do_as_the_second_one_did(config, recipe, method, monkeypatch):
    model, recipe = resolve(None, config), Recipe.from_mapping(recipe)

    def compiled():
        plan = compile_plan(model, method, recipe)
        peaks = [plan.peaks(*setting)[::2] for setting in ((1, 1, 1), (1, 63, 8), (3, 63, 2), (2, 40, 64))]
        return peaks, [(point.phase, point.label, point.last.entries) for point in plan.points]

    peaks, points = compiled()
    monkeypatch.setattr(stack, "APART", 1_000)  # every layer is walked
    all_peaks, all_points = compiled()
    assert peaks == all_peaks
    walked = {(phase, label): entries for phase, label, entries in all_points}
    for phase, label, entries in points:
        if ".." not in label:
            assert walked[phase, label] == entries


TRACED = Path(__file__).parents[2] / "oracles" / "traced-grid.jsonl"
DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers")


def of_each_family():
    """One small config for each model type of the traced grid, nine layers deep."""
    rows = [json.loads(line)["request"]["config"] for line in TRACED.read_text().splitlines()]
    return {row["model_type"]: {name: deep(name, value) for name, value in row.items()} for row in rows}


def deep(name, value):
    """Nine layers, and what a config says of each of its own."""
    return 9 if name in DEPTHS else (value * 9)[:9] if isinstance(value, list) else value


@pytest.mark.parametrize("recipe", [{}, {"gradient_checkpointing": False, "micro_batch_size": 3}], ids=["", "kept"])
def test_one_walk_for_two_cards_and_a_last_layer_like_the_others_finds_what_walks_apart_find(recipe, monkeypatch):
    """Of each family: as it is walked for an answer, then with the last layer walked by itself, and the older card by itself."""
    recipe, families, together = Recipe.from_mapping(recipe), of_each_family(), 0
    for number, (name, config) in enumerate(families.items()):
        model, method = resolve(None, config), ("full", "lora")[number % 2]
        plan = compile_plan(model, method, recipe, BEFORE_8)
        if plan.also is not None:
            together += 1
            older = compile_plan(model, method, replace(recipe, accelerator=BEFORE_8))
            assert plan.also.validity.ranges == older.validity.ranges, name
            settings = [at for at in ((1, 1, 1), (1, 512, 8), (3, 300, 2), (4, 64, 64)) if older.validity.covers(*at)]
            assert [plan.also.at(*at) for at in settings] == [older.peaks(*at)[2] for at in settings], name
        with monkeypatch.context() as patch:
            patch.setattr(Root, "last_apart", True)
            apart = compile_plan(model, method, recipe)
        assert plan.to_dict() == apart.to_dict(), name
        assert [moment.entries for moment in plan.moments] == [moment.entries for moment in apart.moments], name
        assert [point.last.entries for point in plan.points] == [point.last.entries for point in apart.points], name
    assert together >= len(families) - 2 >= 30  # all but two encoders of fixed length

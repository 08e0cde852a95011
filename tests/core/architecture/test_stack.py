"""Cutting a stack into runs of repeating units."""

import json
from pathlib import Path

import pytest

from loralens.core.answer.plan import compile_plan
from loralens.core.architecture import stack
from loralens.core.architecture.causal import Root
from loralens.core.architecture.module import Module
from loralens.core.architecture.stack import Placed, runs
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


@pytest.mark.parametrize(
    "recipe", [{}, {"gradient_checkpointing": False, "accelerator": "cuda-before-8"}], ids=["", "kept"]
)
def test_a_last_layer_that_is_taken_to_be_like_those_before_it_is_like_them(recipe, monkeypatch):
    recipe, families = Recipe.from_mapping(recipe), of_each_family()
    assert len(families) > 30

    def compiled(config, method):
        plan = compile_plan(resolve(None, config), method, recipe)
        return (
            plan.to_dict(),
            [moment.entries for moment in plan.moments],
            [point.last.entries for point in plan.points],
        )

    for number, (name, config) in enumerate(families.items()):
        method = ("full", "lora")[number % 2]
        as_usual = compiled(config, method)
        with monkeypatch.context() as patch:
            patch.setattr(Root, "last_apart", True)
            assert as_usual == compiled(config, method), name

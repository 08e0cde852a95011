"""Requests of like layers once, against the walk that takes every layer."""

from __future__ import annotations

from collections import Counter

import pytest

from loralens.core.answer.asked import asked_step, resting
from loralens.core.answer.named_requests import named_requests, resting_bytes
from loralens.core.question.model import named
from loralens.core.question.recipe import Recipe


@pytest.mark.parametrize(
    ("model", "method", "words"),
    [
        ("smollm2-135m", "lora", {"lora": {"rank": 16}, "micro_batch_size": 4}),
        ("gemma-3-270m", "qlora", {"gradient_checkpointing": True}),
        ("gpt2", "full", {"optimizer": "adamw_8bit"}),
        ("t5-small", "lora", {"micro_batch_size": 2}),
    ],
)
def test_each_request_of_each_layer_is_there(model, method, words):
    recipe = Recipe.from_mapping({"sequence_length": 512, **words})
    point = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    step = asked_step(named(model), method, recipe)
    found = [(one.label, one.phase, one.size.at(*point), one.alive.at(*point)) for one in step.requests]
    for run in step.repeated:
        change = run.change.at(*point)
        found += [
            (label, phase, size, alive + again * change)
            for label, phase, size, alive in found[run.start : run.end]
            for again in range(1, run.times + 1)
        ]
    every = [(one.label, one.phase, one.bytes, one.alive_bytes) for one in named_requests(named(model), method, recipe)]
    inputs = len(every) - len(found)  # the batch, booked before forward begins
    assert 0 < inputs < 5
    assert Counter(every[inputs:]) == Counter(found)


def test_what_rests_is_the_plans():
    for method in ("full", "lora", "qlora"):
        recipe = Recipe.from_mapping({"sequence_length": 512, "optimizer": "adamw_8bit"})
        assert resting(named("smollm2-135m"), method, recipe) == resting_bytes(named("smollm2-135m"), method, recipe)

"""Loops over chunks: the turns that are not walked are counted as if they had been."""

import pytest

from loralens.core.answer.cost import simulation_passes
from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.named_requests import named_requests
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

DELTA = {
    "model_type": "qwen3_5_text",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["full_attention", "linear_attention"],
}


def recipe(length, **words):
    return Recipe.from_mapping({"micro_batch_size": 2, "sequence_length": length, "autocast": None, **words})


@pytest.mark.parametrize("words", [{}, {"gradient_checkpointing": True}, {"autocast": "bfloat16"}])
@pytest.mark.parametrize("length", [64, 100, 320, 330, 1000])
def test_the_peak_is_that_of_a_walk_through_every_turn(length, words):
    model = resolve(config=DELTA)
    found = estimate_model(model, "full", recipe(length, **words))
    requests = named_requests(model, "full", recipe(length, **words))
    whole = max(each.alive_bytes + each.bytes for each in requests)
    assert found.allocated_bytes == whole


STEP = {
    "model_type": "step3p5",
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "moe_intermediate_size": 160,
    "share_expert_dim": 32,
    "n_routed_experts": 24,
    "num_experts_per_tok": 8,
    "moe_layers_enum": [0, 1],
}


@pytest.mark.parametrize("method, words", [("full", {}), ("full", {"gradient_checkpointing": True}), ("lora", {})])
def test_experts_that_are_alike_are_counted_as_if_each_were_walked(method, words):
    model = resolve(config=STEP)
    found = estimate_model(model, method, recipe(600, **words))
    requests = named_requests(model, method, recipe(600, **words))
    assert found.allocated_bytes == max(each.alive_bytes + each.bytes for each in requests)


def test_a_plan_holds_for_other_lengths_of_the_same_remainder():
    model = resolve(config=DELTA)
    known, other = (estimate_model(model, "lora", recipe(length)) for length in (1000, 4072))
    assert known.plan.validity.covers(5, 4072, 8)
    assert not known.plan.validity.covers(5, 4096, 8)
    assert known.plan.peaks(2, 4072, 8)[0] == other.plan.peaks(2, 4072, 8)[0]


def test_a_simulation_costs_a_pass_more_for_every_few_turns():
    model = resolve(config=DELTA)
    short, long = (simulation_passes(model, ("full",), recipe(length)) for length in (256, 64 * 50))
    assert long == 11 * short


def test_a_simulation_costs_a_pass_more_for_every_few_experts_in_turn():
    few, many = (resolve(config={**STEP, "n_routed_experts": count}) for count in (8, 250))
    short, long = (simulation_passes(model, ("full",), recipe(256)) for model in (few, many))
    assert long == 51 * short // 2

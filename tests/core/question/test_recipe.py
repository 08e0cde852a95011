"""Recipes: every word round-trips, every wrong value names its field and the way out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralens.core.errors import InvalidInput
from loralens.core.question.flat import nested
from loralens.core.question.recipe import WORD, Recipe

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_defaults_are_the_contracts():
    recipe = Recipe.from_mapping({})
    assert (recipe.micro_batch_size, recipe.sequence_length, recipe.weights_dtype) == (1, 2048, "bfloat16")
    assert recipe.lora.target_modules is None
    assert recipe == Recipe() == Recipe.from_mapping(Recipe().to_dict())


def test_true_and_one_are_different_values():
    with pytest.raises(InvalidInput):
        Recipe.from_mapping({"micro_batch_size": True})
    assert Recipe.from_mapping({"micro_batch_size": 1}).micro_batch_size == 1


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"lora": {"rank": 0}}, "lora.rank"),
        ({"lora": {"rank": 10**9}}, "lora.rank"),
        ({"lora": {"alpha": float("nan")}}, "lora.alpha"),
        ({"sequence_length": -5}, "sequence_length"),
        ({"optimizer": "adamw"}, "optimizer"),
        ({"nonsense": 1}, "nonsense"),
        ({"parallelism": {"gpus": 2}}, "parallelism.strategy"),
        ({"lora": {"target_modules": [1]}}, "lora.target_modules"),
        ({"lora": []}, "lora"),
        ({"stack": {"numpy": "1"}}, "stack.numpy"),
        ({"stack": {"megatron": "abc"}}, "stack.megatron"),
        ({"stack": {"torch": ""}}, "stack.torch"),
    ],
)
def test_wrong_values_name_their_field(words, field):
    with pytest.raises(InvalidInput) as caught:
        Recipe.from_mapping(words)
    assert caught.value.field == field


@given(
    st.dictionaries(st.sampled_from(sorted({*WORD, "lora", "quantization", "parallelism", "stack"})), JSON, max_size=4)
)
def test_any_values_give_a_recipe_or_a_clear_error(words):
    try:
        recipe = Recipe.from_mapping(words)
    except InvalidInput as error:
        assert error.field and error.message
    else:
        assert Recipe.from_mapping(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_flat_words_nest():
    assert nested(
        {"rank": "16", "target_modules": "q_proj,v_proj", "quantization": "nf4", "gpus": "2", "strategy": "ddp"}
    ) == {
        "lora": {"rank": 16, "target_modules": ["q_proj", "v_proj"]},
        "quantization": {"type": "nf4"},
        "parallelism": {"gpus": 2, "strategy": "ddp"},
    }
    assert nested({"target_modules": "all-linear"}) == {"lora": {"target_modules": "all-linear"}}
    assert nested({"target_modules": "none"}) == {"lora": {"target_modules": None}}
    with pytest.raises(InvalidInput):
        nested({"rnak": 8})


@pytest.mark.parametrize(
    ("recipe", "hint"),
    [
        ({"value": {"weights_dtype": "int8"}}, "try value_dtype="),
        ({"reward_model": {"quantization": "nf5"}}, "try reward_quantization="),
        ({"rollout": {"utilization": 7}}, "try gpu_memory_utilization="),
        ({"objective": {"type": "dpoo"}}, "try objective=dpo"),
    ],
)
def test_a_hint_names_the_word_that_is_wrong_and_no_other(recipe, hint):
    with pytest.raises(InvalidInput) as caught:
        Recipe.from_mapping(recipe)
    assert caught.value.hint.startswith(hint)

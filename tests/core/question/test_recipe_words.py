"""The help table and the recipe know the same words."""

from __future__ import annotations

import pytest

from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe, flat_names, nested
from loralens.core.question.recipe_words import WORDS, default


def test_every_word_has_its_help():
    assert sorted(word.name for word in WORDS) == sorted(flat_names())
    assert all(word.help.endswith(".") for word in WORDS)


@pytest.mark.parametrize("word", [word for word in WORDS if word.choices], ids=lambda word: word.name)
def test_the_choices_are_those_that_the_recipe_takes(word):
    extra = {"gpus": 2} if word.name == "strategy" else {}
    for choice in word.choices:
        if (word.name, choice) != ("strategy", "none"):
            Recipe.from_mapping(nested({word.name: choice, **extra}))
    with pytest.raises(InvalidInput):
        Recipe.from_mapping(nested({word.name: "no such word"}))


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.name)
def test_the_default_is_what_the_recipe_uses(word):
    value = default(word.name)
    if value is not None:
        assert Recipe.from_mapping(nested({word.name: value})) is not None


@pytest.mark.parametrize("word", [word for word in WORDS if word.kind == "boolean"], ids=lambda word: word.name)
def test_a_boolean_takes_both_and_nothing_else(word):
    assert Recipe.from_mapping(nested({word.name: "true"})) != Recipe.from_mapping(nested({word.name: "false"}))
    with pytest.raises(InvalidInput):
        Recipe.from_mapping(nested({word.name: "maybe"}))

"""Every word is one row, and a row tells the truth: what it lists is accepted, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralens.core.errors import InvalidInput
from loralens.core.question.flat import nested
from loralens.core.question.indices import Indices
from loralens.core.question.kinds import Choice, Fused, Maybe, Number, Truth, Whole
from loralens.core.question.media import Extent
from loralens.core.question.mesh import Elements, Reshard
from loralens.core.question.names import Names, Ranks, Versions
from loralens.core.question.objective_names import HEADS
from loralens.core.question.objectives import Subject
from loralens.core.question.recipe import ALIASES, ALL_WORDS, GROUPS, WORD, WORDS, Recipe
from loralens.core.question.words import words_of

NAMES = st.text("abcdefghijk_.", min_size=1, max_size=12)


def values(kind):
    """Every value that a kind takes, as JSON."""
    match kind:
        case Maybe():
            return st.none() | values(kind.of)
        case Whole():
            return st.integers(kind.low, kind.high)
        case Number():
            return st.floats(kind.low, kind.high)
        case Truth():
            return st.booleans()
        case Choice():
            return st.sampled_from(kind.choices)
        case Names():
            names = st.lists(NAMES, min_size=int(kind.pattern_allowed), max_size=3)
            return names | st.sampled_from(["all-linear", ".*q_proj"]) if kind.pattern_allowed else names
        case Indices():
            return st.lists(st.integers(0, 40), min_size=1, max_size=3, unique=True).map(sorted)
        case Ranks():
            return st.dictionaries(NAMES, st.integers(1, 64), max_size=3)
        case Versions():
            return st.dictionaries(st.sampled_from(kind.libraries), st.sampled_from(["5.23", "0.21.2"]), max_size=3)
        case Subject():
            return NAMES | st.dictionaries(NAMES, st.integers(1, 64), max_size=3)
        case Fused():
            return st.sampled_from([False, True, "+lora"])
        case Extent():
            return st.lists(st.integers(1, 4096), min_size=2, max_size=2)
        case Elements():
            return st.none() | st.just("auto") | st.integers(0, kind.most)
        case Reshard():
            return st.booleans() | st.integers(2, 65_536)


def objects(rows):
    return st.fixed_dictionaries({}, optional={row.field: values(row.kind) for row in rows})


RECIPES = st.builds(
    lambda own, groups: {**own, **groups},
    objects(words_of(Recipe)),
    st.fixed_dictionaries({}, optional={name: st.none() | objects(words_of(cls)) for name, cls in GROUPS.items()}),
)


@given(RECIPES)
def test_a_recipe_is_what_its_json_says(words):
    try:
        recipe = Recipe.from_mapping(words)
    except InvalidInput:  # words that do not go together
        return
    shown = recipe.to_dict()
    assert Recipe.from_mapping(json.loads(json.dumps(shown))) == recipe
    for group, cls in {"": Recipe, **GROUPS}.items():
        given = (words.get(group) or {}) if group else words
        for row in words_of(cls):
            if given.get(row.field) is not None:
                assert (shown[group] if group else shown)[row.field] == given[row.field], row.field


def test_defaults_in_the_rows_are_the_recipes():
    shown = Recipe().to_dict()
    for row in ALL_WORDS:
        group = shown[row.group] if row.group else shown
        assert row.default == (None if row.name == "quantization" else (group or {}).get(row.field, row.default))
        assert row.help.endswith("."), row.name


def test_names_are_unambiguous():
    assert len({*WORD, *ALIASES}) == len(WORD) + len(ALIASES)
    assert len({row.path for row in ALL_WORDS}) == len(ALL_WORDS)
    assert {row.name for row in ALL_WORDS} - set(WORD) == {
        "stack",
        "rank_pattern",
        "alpha_pattern",
    }  # objects, not one text


@pytest.mark.parametrize("row", [row for row in WORDS if row.kind.choices], ids=lambda row: row.name)
def test_exactly_the_listed_choices_are_taken(row):
    """Listed words are accepted, and there is no word beside them that another list of the project would add."""
    beside = {
        "strategy": {"gpus": 2},
        "offload": {"gpus": 2, "strategy": "fsdp"},
        "offload_device": {"gpus": 2, "strategy": "zero3", "offload": "parameters"},
    }.get(row.name, {})
    taken = set()
    # a head may be said as an objective of its own, see `objective_names`
    meant = set(HEADS) if row.name == "objective" else set()
    for choice in sorted({choice for other in ALL_WORDS for choice in other.kind.choices} - meant):
        try:
            recipe = Recipe.from_mapping(nested({**beside, row.name: choice}))
        except InvalidInput as error:
            assert error.hint
        else:
            taken.add(choice)
            shown = recipe.get(row.name)
            assert {False: "false", True: "true", None: "none"}.get(shown, shown) == choice or choice == "none"
    assert taken - {"none"} == set(row.kind.choices) - {"none"}


@pytest.mark.parametrize(
    "row", [row for row in WORDS if isinstance(row.kind, (Whole, Number))], ids=lambda row: row.name
)
def test_ranges_are_the_listed_ones(row):
    low, high = (row.to_dict()[end] for end in ("minimum", "maximum"))
    beside = {"gpus": {"strategy": "ddp"}, "cp": {"strategy": "ddp"}, "ep": {"strategy": "fsdp2"}}.get(row.name, {})
    for value in (low, high):
        gpus = {"gpus": value} if row.name == "ep" else {}  # experts are divided among GPUs that are there
        assert Recipe.from_mapping(nested({row.name: value, **gpus, **beside})).get(row.name) == value
    for value in (low - 1, high + 1, "many"):
        with pytest.raises(InvalidInput):
            Recipe.from_mapping(nested({row.name: value}))


@pytest.mark.parametrize("row", [row for row in WORDS if row.kind.text == "boolean"], ids=lambda row: row.name)
def test_a_boolean_takes_both_and_nothing_else(row):
    assert Recipe.from_mapping(nested({row.name: "true"})) != Recipe.from_mapping(nested({row.name: "false"}))
    with pytest.raises(InvalidInput):
        Recipe.from_mapping(nested({row.name: "maybe"}))


@pytest.mark.parametrize("row", WORDS, ids=lambda row: row.name)
def test_a_word_is_got_and_changed_by_its_flat_name(row):
    recipe = Recipe.from_mapping({"quantization": "nf4"})
    value = recipe.get(row.name)
    assert recipe.with_(row.name, value) == recipe


def test_the_pages_copy_is_the_table_of_today():
    copy = Path(__file__).resolve().parents[3] / "frontend" / "src" / "shared" / "api" / "words.json"
    assert json.loads(copy.read_text(encoding="utf-8")) == [row.to_dict() for row in ALL_WORDS], "make api-types"


@pytest.mark.parametrize("strategy", ["none", "ddp", "zero1", "zero2"])
def test_weights_are_offloaded_only_where_they_come_back_unit_by_unit(strategy):
    gpus = 1 if strategy == "none" else 2
    with pytest.raises(InvalidInput) as caught:
        Recipe.from_mapping({"parallelism": {"gpus": gpus, "strategy": strategy, "offload": "parameters"}})
    assert caught.value.field == "parallelism.offload"
    assert "zero3" in str(caught.value.hint)
    for able in ("fsdp", "zero3"):
        Recipe.from_mapping({"parallelism": {"gpus": 1, "strategy": able, "offload": "parameters"}})


def test_a_group_of_no_weights_has_no_scale():
    with pytest.raises(InvalidInput) as caught:
        Recipe.from_mapping({"quantization": {"type": "gptq4", "group_size": 0}})
    assert caught.value.field == "quantization.group_size"

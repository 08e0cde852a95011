"""A trainer's defaults fill what is left open, and nothing else; an answer's recipe, sent back, gives the same answer."""

from __future__ import annotations

import json

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.errors import InvalidInput
from loralens.core.question.presets import CONDITIONS, DATA, WORDS, as_trained, preset
from loralens.core.question.recipe import TRAINERS, Recipe

METHODS = ("full", "lora", "qlora", "dora")


def estimate(recipe, method="qlora", model="qwen2.5-0.5b"):
    return memory_answer({"model": model, "method": method, "recipe": recipe})["estimates"][0]


def test_there_is_one_file_for_each_trainer():
    assert {path.stem for path in DATA.glob("*.json")} == set(TRAINERS)


@pytest.mark.parametrize("name", TRAINERS)
def test_every_row_has_a_source_and_says_one_thing(name):
    found = preset(name)
    for row in found.rows:
        assert row.source
        assert set(row.conditions) <= set(CONDITIONS)
        assert row.word in WORDS
        if row.value is not None and row.word != "stack":
            Recipe().with_(row.word, row.value)
    for method in METHODS:
        for packed in (None, "nf4", "int8"):
            words = [row.word for row in found.defaults(method, Recipe.from_mapping({"quantization": packed}))]
            assert len(words) == len(set(words))


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("method", METHODS)
def test_an_answers_recipe_gives_the_same_answer(name, method):
    first = estimate({"trainer": name}, method)
    assert estimate(first["recipe"], method) == first
    assert first["recipe"]["trainer"] == name
    assert any(preset(name).title in sentence for sentence in first["assumptions"])


def test_only_words_left_open_are_filled():
    asked = {"trainer": "trl", "gradient_checkpointing": False, "lora": {"rank": 64, "adapter_dtype": "float32"}}
    used = estimate(asked)["recipe"]
    assert (used["gradient_checkpointing"], used["lora"]["rank"], used["lora"]["adapter_dtype"]) == (
        False,
        64,
        "float32",
    )
    assert (used["weights_dtype"], used["lora"]["dropout"], used["quantization"]["prepare_kbit"]) == (
        "float32",
        0.05,
        False,
    )


def test_a_packing_by_its_name_alone_leaves_its_words_open():
    assert estimate({"trainer": "trl", "quantization": "nf4"})["recipe"]["quantization"]["double_quant"] is False
    said = {"type": "nf4", "double_quant": True}
    assert estimate({"trainer": "trl", "quantization": said})["recipe"]["quantization"]["double_quant"] is True


def test_defaults_follow_the_method():
    full, qlora = (estimate({"trainer": "llama-factory"}, method)["recipe"] for method in ("full", "qlora"))
    assert (full["weights_dtype"], qlora["weights_dtype"]) == ("float32", "bfloat16")


def test_defaults_follow_the_version():
    old = estimate({"trainer": "trl", "stack": {"trl": "0.21"}})
    new = estimate({"trainer": "trl"})
    assert (old["recipe"]["gradient_checkpointing"], new["recipe"]["gradient_checkpointing"]) == (False, True)
    assert (old["recipe"]["loss"], new["recipe"]["loss"]) == ("full", "fused_head")
    assert any("TRL 0.21" in sentence for sentence in old["assumptions"])


def test_what_no_word_says_is_said():
    for name in TRAINERS:
        said = " ".join(estimate({"trainer": name})["assumptions"])
        assert all(note.says in said for note in preset(name).notes if "full" not in note.conditions)


def test_every_trainer_has_its_row():
    rows = memory_answer(
        {"model": "qwen2.5-0.5b", "methods": ["full", "qlora"], "trainers": True, "recipe": {"lora": {"rank": 4}}}
    )["trainers"]
    assert [(row["method"], row["trainer"]) for row in rows] == [(m, t) for m in ("full", "qlora") for t in TRAINERS]
    for row in rows:
        alone = estimate({"trainer": row["trainer"], "lora": {"rank": 4}}, row["method"])
        assert (row["peak"], row["recipe"]) == (alone["peak"], alone["recipe"])


def test_unknown_trainers_are_refused():
    with pytest.raises(InvalidInput, match="trainer must be one of"):
        estimate({"trainer": "accelerate"})
    with pytest.raises(InvalidInput, match="trainers must be"):
        memory_answer({"model": "7B", "trainers": ["accelerate"]})


def test_no_trainer_changes_nothing():
    assert as_trained(Recipe(), "qlora") == Recipe()
    json.dumps(estimate({}))


@pytest.mark.parametrize("trainer", ["none", "trl"])
def test_how_a_base_is_packed_does_not_say_that_it_is(trainer: str) -> None:
    asked = {"model": "qwen2.5-0.5b", "method": "lora"}
    words = {"trainer": trainer, "quantization": {"group_size": 64}}
    plain = memory_answer({**asked, "recipe": {"trainer": trainer}})["estimates"][0]
    row = memory_answer({**asked, "recipe": words})["estimates"][0]
    assert (row["peak"], row["regime"]) == (plain["peak"], plain["regime"])
    idle = [{"words": ["group_size"], "reason": "no quantization is named, and only qlora packs by itself"}]
    assert [one for one in row["without_effect"] if one not in plain["without_effect"]] == idle
    own = memory_answer({**asked, "method": "qlora", "recipe": words})["estimates"][0]["recipe"]["quantization"]
    assert own is not None and (own["type"], own["group_size"]) == ("nf4", 64)
    by_name = memory_answer({**asked, "model": "TheBloke/Llama-2-7B-GPTQ", "recipe": words})["estimates"][0]
    assert by_name["recipe"]["quantization"] == {**own, "type": "gptq4"} | {
        name: by_name["recipe"]["quantization"][name] for name in ("double_quant", "prepare_kbit")
    }


def test_full_fine_tuning_has_no_packing_anywhere() -> None:
    asked = {"model": "qwen2.5-0.5b", "method": "full"}
    plain, row = (
        memory_answer({**asked, "recipe": {"quantization": packing}})["estimates"][0] for packing in (None, "nf4")
    )
    assert row["without_effect"] == [{"words": ["quantization"], "reason": "weights that train are not packed"}]
    assert row["moments"] == plain["moments"]

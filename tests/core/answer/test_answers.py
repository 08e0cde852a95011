"""The answers that every surface shares."""

import pytest

from loralens import estimate
from loralens.core.answer.answers import memory_answer, parameters_answer, plan_answer
from loralens.core.errors import InvalidInput, UnknownModel, UnsupportedArchitecture


def test_llama_2_7b_as_peft_counts_it():
    answer = memory_answer({"model": "7B"})
    assert answer["model"]["parameters"] == 6_738_415_616
    assert [item["method"] for item in answer["estimates"]] == ["full", "lora", "qlora"]
    for item in answer["estimates"][1:]:
        assert item["parameters"] == {"total": 6_742_609_920, "trainable": 4_194_304, "trainable_percent": 0.0622}
    assert estimate("7B", method="lora", rank=8).trainable_parameters == 4_194_304


def test_every_byte_is_explained():
    for item in memory_answer({"model": "llama-3.1-8b", "methods": ["full", "lora", "qlora", "dora"]})["estimates"]:
        peak = item["peak"]["allocated_bytes"]
        assert sum(item["breakdown"].values()) == peak
        assert sum(term["bytes"] for term in item["terms"]) == peak
        assert all(
            term["formula"] and term["substituted"].endswith(f"= {term['bytes']:,}") and term["source"]
            for term in item["terms"]
        )
        assert max(phase["peak_bytes"] for phase in item["phases"]) == peak


def test_comparison_needs_both_methods():
    assert memory_answer({"model": "7B", "method": "lora"})["comparison"] is None
    ratios = memory_answer({"model": "7B"})["comparison"]
    assert ratios["parameters_ratio"] == round(6_738_415_616 / 4_194_304, 4)
    assert ratios["switch_ratio"] is None


def test_parameters_add_up():
    answer = parameters_answer({"model": "7B", "method": "lora"})
    assert sum(row["parameters"] for row in answer["tensors"]) == answer["parameters"]["total"]
    assert sum(row["parameters"] for row in answer["tensors"] if row["trainable"]) == answer["parameters"]["trainable"]
    assert {row["rank"]: row["trainable"] for row in answer["by_rank"]}[8] == answer["parameters"]["trainable"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "model"),
        ({"model": "7B", "config": {"model_type": "llama"}}, "config"),
        ({"model": "7B", "method": "lora", "methods": ["full"]}, "methods"),
        ({"model": "7B", "methods": []}, "methods"),
        ({"model": "7B", "method": "prompt"}, "method"),
        ({"model": "7B", "surprise": 1}, "surprise"),
        ({"config": {"model_type": "llama", "hidden_size": -1}}, "config.hidden_size"),
        ({"config": 7}, "config"),
        ({"model": "7B", "recipe": {"lora": {"target_modules": ["nothing"]}}}, "lora.target_modules"),
        ({"model": "7B", "recipe": {"lora": {"target_modules": "(a+)+b"}}}, "lora.target_modules"),
        ({"model": "7B", "recipe": {"lora": {"target_modules": ".*" * 10 + "zzz"}}}, "lora.target_modules"),
        ({"model": "7B", "recipe": {"lora": {"target_modules": "(.|.)" * 30}}}, "lora.target_modules"),
        ({"model": "7B", "recipe": {"lora": {"rank_pattern": {"(?=a)b": 4}}}}, "lora.rank_pattern"),
        ({"model": "7B", "recipe": {"lora": {"modules_to_save": ["nothing"]}}}, "lora.modules_to_save"),
        ({"model": "7B", "method": "full", "recipe": {"trainable_layers": 33}}, "trainable_layers"),
    ],
)
def test_wrong_requests_name_their_field(body, field):
    with pytest.raises(InvalidInput) as caught:
        memory_answer(body)
    assert caught.value.field == field


def test_unknown_model_suggests_names():
    with pytest.raises(UnknownModel):
        memory_answer({"model": "llama-9"})


def test_plans_come_for_each_method():
    plans = plan_answer({"model": "7B"})["plans"]
    assert [plan["method"] for plan in plans] == ["full", "lora", "qlora"]
    assert all(len(moment["bytes"]) == len(plan["categories"]) for plan in plans for moment in plan["moments"])


def test_families_without_a_step_are_counted():
    sizes = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 200}
    config = {"model_type": "recurrent_gemma", "intermediate_size": 192, **sizes}
    counted = parameters_answer({"config": config})
    assert counted["exact"] and "only counted" in counted["note"]
    with pytest.raises(UnsupportedArchitecture):
        memory_answer({"config": config})


@pytest.mark.parametrize(
    "model", ["t5-base", "flan-t5-xl", "whisper-large-v3", "vit-large-patch16-224", "llama-4-scout"]
)
def test_models_that_are_no_plain_decoders_have_a_step(model):
    answer = memory_answer({"model": model})
    assert [one["method"] for one in answer["estimates"]] == ["full", "lora", "qlora"]
    for one in answer["estimates"]:
        assert sum(one["breakdown"].values()) == one["peak"]["allocated_bytes"]
        assert [phase["phase"] for phase in one["phases"]] == ["forward", "backward", "optimizer"]
        if model != "llama-4-scout":  # a sequence is not what it is for a decoder: the answer says what it is
            assert any("sequence" in text for text in one["assumptions"])
    plans = plan_answer({"model": model})["plans"]
    assert all({point["phase"] for point in plan["timeline"]} >= {"forward", "backward"} for plan in plans)


def test_a_whisper_sequence_is_cut_to_what_the_decoder_takes():
    longest, longer = (
        memory_answer({"model": "whisper-large-v3", "method": "lora", "recipe": {"sequence_length": length}})
        for length in (448, 2048)
    )
    assert longest["estimates"][0]["peak"] == longer["estimates"][0]["peak"]
    assert any("cut to 448" in text for text in longer["estimates"][0]["assumptions"])
    assert not any("cut to 448" in text for text in longest["estimates"][0]["assumptions"])


def test_an_unknown_family_is_a_guess_that_says_so():
    config = {
        "model_type": "mystery", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4,
        "num_attention_heads": 8, "vocab_size": 4000,
    }  # fmt: skip
    answer = parameters_answer({"config": config})
    assert not answer["exact"] and "about" in answer["note"]
    with pytest.raises(UnsupportedArchitecture, match="mystery"):
        memory_answer({"config": config})

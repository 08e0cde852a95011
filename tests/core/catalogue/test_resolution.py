"""Names that people type: a corpus of public ones, each with what it must mean, and what must never be guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralens.core import catalogue
from loralens.core.answer.answers import memory_answer, parameters_answer, plan_answer
from loralens.core.answer.estimate import estimate
from loralens.core.answer.serving import serving_answer
from loralens.core.catalogue import models, read, reading
from loralens.core.catalogue._resolution import NAMES
from loralens.core.errors import InvalidInput, UnknownModel
from loralens.core.question.packings import QUANTIZATIONS

CORPUS: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "names.jsonl").read_text("utf-8").splitlines()
]
"""Names with where they were read. `id` null: no model of the catalogue has this architecture, and none may be guessed.
`model_type` is what public lists say of the name, independently of the catalogue."""
OTHER_TYPE = {
    ("gemma3_text", "gemma3"): "the catalogue counts Gemma 3's text model",
    ("mistral", "mistral3"): "the text model under a vision tower",
    ("mistral", "ministral"): "the config.json of 2024 says mistral",
    ("qwen3_moe", "qwen"): "the public list judged from the name's owner",
}


@pytest.mark.parametrize("row", CORPUS, ids=lambda row: row["name"])
def test_a_public_name_means_its_architecture_or_nothing(row: dict[str, Any]) -> None:
    found = read(row["name"])
    assert (found.id if found else None, found.packing if found else None) == (row["id"], row["packing"])


def test_the_public_lists_agree_on_the_family() -> None:
    judged = [row for row in CORPUS if row["id"] and row["model_type"]]
    assert len(judged) > 150
    for row in judged:
        family = catalogue.entry(row["id"]).family
        assert family == row["model_type"] or (family, row["model_type"]) in OTHER_TYPE, row["name"]


def test_every_name_that_is_not_in_the_catalogue_says_how_it_was_read() -> None:
    own = {name for entry in models() for name in (entry.id, entry.name, entry.hf_id, *entry.aliases)}
    for row in CORPUS:
        found = read(row["name"])
        if found is not None and row["name"] not in own and not found.notes:
            assert catalogue.key(row["name"]) in {catalogue.key(name) for name in own} | {
                catalogue.key(entry.hf_id.split("/")[-1]) for entry in models()
            }, row["name"]


@pytest.mark.parametrize(("name", "id_"), [("7B", "llama-2-7b"), ("13b", "llama-2-13b"), ("30B", "llama-30b"),
                                           ("70B", "llama-2-70b"), ("qwen2.5-7b", "qwen2.5-7b")])  # fmt: skip
def test_a_name_of_the_catalogue_is_read_without_a_word(name: str, id_: str) -> None:
    assert reading(name) == catalogue.NameReading(id_)


@given(st.sampled_from([row for row in CORPUS if row["id"]]), st.sampled_from([str.upper, str.lower, str.title]))
def test_case_does_not_matter(row: dict[str, Any], change: Any) -> None:
    found = read(change(row["name"]))
    assert found is not None
    assert (found.id, found.packing) == (row["id"], row["packing"])


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    found = read(text)
    assert found is None or found.id in {entry.id for entry in models()}


@pytest.mark.parametrize(
    "name",
    ["Idefics3-8B-Llama3", "llava-v1.6-mistral-7b", "Qwen3-Embedding-0.6B", "Qwen3-Reranker-4B", "Mistral-7B-v0.4",
     "Mistral-Small-Instruct-2409", "glm-4-9b-chat-1m", "CodeLlama-7b-Python-hf", "llama-3.1-8b-vision", "gpt2-huge",
     "InternVL3_5-GPT-OSS-20B-A4B", "Llama-3.1-Minitron-4B", "distil-large-v3", "bert-base-multilingual-cased", "9B-it-2B",
     "llama-3-8b-moe", "Llama-3-2x8B", "AMD-Llama-135m", "t5-base-japanese-xl", "phi-4-multimodal-instruct",
     "https://huggingface.co/Qwen/Qwen3-8B", "a/b/Qwen3-8B", "llama3; rm", ""],
)  # fmt: skip
def test_what_could_be_another_architecture_is_refused(name: str) -> None:
    found = read(name)
    assert found is None, found


def test_a_refusal_says_why_where_that_is_known() -> None:
    with pytest.raises(UnknownModel, match="four groups of keys and values"):
        reading("glm-4-9b-chat-1m")


def test_a_fine_tune_says_what_was_assumed() -> None:
    (note,) = reading("NousResearch/Hermes-3-Llama-3.1-8B").notes
    assert note.startswith("NousResearch/Hermes-3-Llama-3.1-8B is read as Llama-3.1-8B")
    assert "vocabulary is assumed unchanged" in note
    assert "--config" in note


def test_the_tables_name_models_and_packings_that_exist() -> None:
    data, ids = json.loads(NAMES.read_text("utf-8")), {entry.id for entry in models()}
    for table in ("sizes", "families"):
        assert {id_ for named in data[table].values() for id_ in named} <= ids
    for row in data["same"]:
        assert {row["id"].replace("{size}", size) for size in row.get("sizes", [""])} <= ids
    for start in data["unlike"]:
        assert read(start) is None or read(start).notes == (), start  # type: ignore[union-attr]
    assert {row["packing"] for row in CORPUS} - {None} <= set(QUANTIZATIONS)


def test_a_packed_name_is_lora_on_that_packing_everywhere() -> None:
    name, packed = "unsloth/Qwen3-8B-bnb-4bit", {"model": "qwen3-8b", "recipe": {"quantization": {"type": "nf4"}}}
    (found,) = memory_answer({"model": name, "method": "lora"})["estimates"]
    (meant,) = memory_answer({**packed, "method": "lora"})["estimates"]
    assert found["recipe"] == meant["recipe"]
    assert found["peak"] == meant["peak"]
    assert any("nf4" in text for text in found["assumptions"])
    assert estimate(name, method="lora").allocated_bytes == meant["peak"]["allocated_bytes"]
    (plan,) = plan_answer({"model": name, "method": "lora"})["plans"]
    assert plan["recipe"]["quantization"]["type"] == "nf4"
    assert plan["assumptions"][0] == plan["model"]["read_as"][0]
    assert parameters_answer({"model": name, "method": "lora"})["note"].startswith(name)
    weights = [serving_answer({"model": one} | more)["gpus"] for one, more in
               ((name, {}), ("qwen3-8b", {"quantization": "nf4"}))]  # fmt: skip
    assert weights[0] == weights[1]


def test_packed_weights_do_not_train_in_full() -> None:
    with pytest.raises(InvalidInput, match="cannot train in full") as caught:
        memory_answer({"model": "Qwen/Qwen3-8B-AWQ", "method": "full"})
    assert "model=qwen3-8b" in (caught.value.hint or "")
    full, lora, qlora = memory_answer({"model": "Qwen/Qwen3-8B-AWQ"})["estimates"]
    assert full["peak"] == memory_answer({"model": "qwen3-8b", "method": "full"})["estimates"][0]["peak"]
    assert any("cannot train: counted for the original" in text for text in full["assumptions"])
    assert lora["recipe"]["quantization"]["type"] == qlora["recipe"]["quantization"]["type"] == "gptq4"


def test_another_packing_in_the_recipe_wins_and_says_so() -> None:
    body = {"model": "unsloth/Qwen3-8B-bnb-4bit", "method": "lora", "recipe": {"quantization": {"type": "int8"}}}
    (found,) = memory_answer(body)["estimates"]
    assert found["recipe"]["quantization"]["type"] == "int8"
    assert any("int8 is counted, not the nf4" in text for text in found["assumptions"])


def test_an_answer_about_a_name_of_the_catalogue_has_no_new_field() -> None:
    assert set(memory_answer({"model": "7B", "method": "lora"})["model"]) == {
        "id", "name", "family", "parameters", "left_out"}  # fmt: skip

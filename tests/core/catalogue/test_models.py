"""The catalogue of models: every row is reachable, sourced and independent of its readers."""

import dataclasses
import json

import pytest

from loralens.core.catalogue import model, models, reindex
from loralens.core.errors import UnknownModel


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("7B", "llama-2-7b"),
        ("7b", "llama-2-7b"),
        ("13B", "llama-2-13b"),
        ("30B", "llama-30b"),
        ("70B", "llama-2-70b"),
        ("qwen2.5-7b", "qwen2.5-7b"),
        ("Qwen/Qwen2.5-7B", "qwen2.5-7b"),
        ("META-LLAMA/llama-2-7B-HF", "llama-2-7b"),
        ("Llama-2-7b-hf", "llama-2-7b"),
        (" Llama 2_7B ", "llama-2-7b"),
    ],
)
def test_a_model_is_found_by_id_alias_and_hub_name_in_any_case(name: str, expected: str) -> None:
    assert model(name).id == expected


@pytest.mark.parametrize(
    "name", ["qwen2.5-15b", "gemma-34b", "", ".", "../models", "7B/../13B", "x" * 10_000, "\x00", 7]
)
def test_a_name_that_is_not_in_the_catalogue_is_refused(name: object) -> None:
    with pytest.raises(UnknownModel) as caught:
        model(name)  # type: ignore[arg-type]
    assert caught.value.field == "model"
    assert len(caught.value.message) < 200


def test_the_hint_names_what_was_probably_meant() -> None:
    with pytest.raises(UnknownModel) as caught:
        model("lama-2-7b")
    assert "llama-2-7b" in (caught.value.hint or "")


def test_every_model_is_complete_and_reachable_by_each_of_its_names() -> None:
    entries = models()
    assert len(entries) >= 92
    for entry in entries:
        assert entry.name and entry.licence and entry.source and entry.publisher
        assert entry.provenance in {"published", "partly recalled", "recalled"}
        assert (entry.provenance == "published") == ("recalled" not in entry.source)
        assert entry.family == entry.config["model_type"]
        assert (entry.published_parameters is None) == (entry.published_parameters_source is None)
        for name in (entry.id, entry.name, entry.hf_id, *entry.aliases):
            assert model(name) == entry
        json.dumps(entry.to_dict())


def test_the_index_of_names_is_what_the_model_files_say() -> None:
    index = json.loads(reindex.INDEX.read_text(encoding="utf-8"))
    assert reindex.build(list(dict.fromkeys(index.values()))) == index, "run: python -m loralens.core.catalogue.reindex"


def test_a_reader_that_changes_its_config_changes_nobody_elses() -> None:
    model("7B").config["hidden_size"] = 1
    assert model("7B").config["hidden_size"] == 4096


def test_entries_cannot_be_reassigned() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        model("7B").name = "x"  # type: ignore[misc]

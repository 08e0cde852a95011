"""The hint names what is near by meaning: the family first, then the size."""

import pytest

from loralens.core.catalogue import models, reading
from loralens.core.catalogue._nearest import nearest
from loralens.core.errors import UnknownModel


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("llama-3.1-9b", "llama-3.1-8b"),
        ("meta-llama/Llama-3.2-11B-Vision", "llama-2-13b"),
        ("lama-2-7b", "llama-2-7b"),
        ("qwen2.5-7x", "qwen2.5-7b"),
        ("gemma-4-12B", "gemma-3-12b"),
        ("Qwen/Qwen3-Embedding-8B", "qwen3-8b"),
    ],
)
def test_the_nearest_is_of_the_family_and_of_that_size(name: str, first: str) -> None:
    assert nearest(name)[0] == first


def test_another_family_is_named_only_when_the_family_is_not_known() -> None:
    assert all(id_.startswith("llama") for id_ in nearest("llama-9.9-400b-magic"))
    assert nearest("zorblax-11b-vision") == nearest("11b")
    assert nearest("zorblax") == []


def test_a_hint_holds_names_that_work() -> None:
    ids = {entry.id for entry in models()}
    with pytest.raises(UnknownModel) as caught:
        reading("llama-3.1-9b")
    named = (caught.value.hint or "").removeprefix("did you mean ").partition("?")[0].split(", ")
    assert set(named) <= ids
    assert len(named) == 3

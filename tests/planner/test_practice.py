"""What most people mean is filled in only where nothing was said, and every word of it is named."""

import pytest

from loralens.planner.fit import fit_answer
from loralens.planner.practice import with_practice

ALL = ["method", "gradient_checkpointing", "rank", "target_modules"]


def test_an_empty_question_gets_every_word() -> None:
    body, filled = with_practice({"model": "8B"})
    assert filled == ALL
    assert body == {"model": "8B", "method": "qlora", "recipe": {"lora": {"rank": 16, "target_modules": "all-linear"}}}


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ({"method": "lora"}, ALL[1:]),
        ({"methods": ["full"]}, ["gradient_checkpointing"]),
        ({"method": "lora", "recipe": {"gradient_checkpointing": False}}, ["rank", "target_modules"]),
        ({"recipe": {"lora": {"rank": 4}}}, ["method", "gradient_checkpointing", "target_modules"]),
    ],
)
def test_what_was_said_stays(said: dict, left: list[str]) -> None:
    given = {"model": "8B", **said}
    before = repr(given)
    body, filled = with_practice(given)
    assert filled == left
    assert repr(given) == before
    for name, value in said.get("recipe", {}).items():
        assert body["recipe"][name] == value or body["recipe"][name].items() >= value.items()


def test_a_family_that_refuses_adapters_everywhere_keeps_its_own_targets() -> None:
    body, filled = with_practice({"model": "mamba-130m"})
    assert "target_modules" not in filled
    assert "target_modules" not in body["recipe"]["lora"]


@pytest.mark.parametrize(
    "model", ["t5-base", "bert-base", "whisper-large-v3", "vit-l/16", "gpt2", "gpt-oss-20b", "falcon-7b"]
)
def test_other_families_take_it_too(model: str) -> None:
    body, _ = with_practice({"model": model, "gpu": "h200"})
    assert fit_answer(body)["verdict"] in ("fits", "tight", "does_not_fit")

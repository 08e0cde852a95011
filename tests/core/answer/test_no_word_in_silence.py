"""No word is ignored in silence: it changes the answer, is refused, or is named in what the answer says; by method and task."""

from __future__ import annotations

from typing import Any

import pytest
from core.answer.test_remarks import ALIKE, ROWS, remarked, values

from loralens.core.answer.answers import memory_answer
from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.question.flat import nested
from loralens.core.question.recipe import PACKING_WORDS, WORD
from loralens.trainers.export import export_answer

QWEN = "qwen2.5-0.5b"
TASKS: list[tuple[str, str, dict[str, Any]]] = [
    (QWEN, "lora", {"head": "sequence_classification"}),
    (QWEN, "full", {"head": "token_classification"}),
    (QWEN, "lora", {"head": "question_answering"}),
    (QWEN, "full", {"head": "reward"}),
    (QWEN, "lora", {"head": "embedding"}),
    ("whisper-tiny", "lora", {}),
    (QWEN, "full", {"objective": "dpo"}),
    (QWEN, "lora", {"objective": "kto"}),
    (QWEN, "qlora", {"objective": "orpo"}),
    (QWEN, "lora", {"objective": "reward"}),
    (QWEN, "full", {"objective": "contrastive", "micro_batch_size": 4}),
    (QWEN, "lora", {"objective": "grpo"}),
    (QWEN, "lora", {"objective": "ppo", "reward_model": QWEN}),
    (QWEN, "lora", {"objective": "distillation", "teacher": QWEN}),
]
CARDS = {"gpus", "strategy", "offload", "accelerator"}
"""Words that an answer shows elsewhere than in these fields; `test_remarks` has them."""


def asked(model: str, method: str, words: dict[str, Any]) -> dict[str, Any]:
    body = {"model": model, "method": method, "recipe": nested(words)}
    (found,) = memory_answer(body, verdicts=False)["estimates"]
    return dict(found)


def tried(name: str) -> list[Any]:
    """One value of a word, and all of those that a task may take otherwise."""
    found = values(WORD[name])
    return found if name in ("loss", "reference", "num_labels") else found[:1]


@pytest.mark.parametrize(("model", "method", "beside"), TASKS)
def test_a_word_changes_the_answer_is_refused_or_is_named(model: str, method: str, beside: dict[str, Any]) -> None:
    plain, silent = asked(model, method, beside), []
    before = {name: value for name, value in plain.items() if name != "recipe"}
    for row in ROWS:
        if row.name in {*beside, *CARDS} or row.name in ALIKE:
            continue
        for value in tried(row.name):
            try:
                after = asked(model, method, {**beside, row.name: value})
            except LoraLensError as refused:
                assert refused.hint, (row.name, value)
                continue
            same = {name: found for name, found in after.items() if name != "recipe"} == before
            if same and after["recipe"] != plain["recipe"]:
                silent.append((row.name, value))
    assert not silent


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", sorted(PACKING_WORDS - {"quantization", "skip_modules"}))
def test_the_usual_value_of_a_packing_that_is_not_there_is_named_too(method: str, name: str) -> None:
    recipe = nested({name: WORD[name].default})
    body = {"model": QWEN, "method": method, "recipe": recipe}
    (found,) = memory_answer(body, verdicts=False)["estimates"]
    assert [row["words"] for row in found["without_effect"]] == [[name]]
    with pytest.raises(InvalidInput, match=f"cannot say: {name}=") as refused:
        export_answer({**body, "to": "trl"})
    assert refused.value.field == name
    assert remarked(memory_answer({**body, "method": "qlora"}, verdicts=False)) <= {"group_size"}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"objective": "contrastive", "micro_batch_size": 4}, "an embedding has no classes"),
        ({"head": "embedding"}, "an embedding has no classes"),
        ({"objective": "reward"}, "a reward is one number"),
        ({"head": "question_answering"}, "an answer is a start and an end"),
        ({"objective": "grpo"}, "this head is the language model's"),
    ],
)
def test_classes_of_a_head_that_has_none_are_remarked_upon(words: dict[str, Any], why: str) -> None:
    plain, classes = (asked(QWEN, "lora", {**words, **more}) for more in ({}, {"num_labels": 3}))
    assert any(line.startswith(f"num_labels changes nothing: {why}") for line in classes["assumptions"])
    assert (plain["parameters"], plain["peak"]) == (classes["parameters"], classes["peak"])


def test_the_number_that_a_head_has_anyway_is_not_remarked_upon() -> None:
    for words in ({"head": "reward", "num_labels": 1}, {"head": "question_answering", "num_labels": 2}):
        assert not any("num_labels" in line for line in asked(QWEN, "lora", words)["assumptions"])

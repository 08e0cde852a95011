"""Another objective is one class and its row: a toy joins here, and every answer knows it."""

from functools import partial

from loralens.core.answer.answers import memory_answer
from loralens.core.answer.estimate import estimate_model
from loralens.core.objectives import table
from loralens.core.objectives.logprobs import log_probabilities, of_rows
from loralens.core.objectives.objective import BaseObjective
from loralens.core.question import objectives as words
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe


class Twice(BaseObjective):
    """Learns from triples: a chosen row and two rejected ones, after the model has scored them without its adapter."""

    rows = 3

    def loss(self, passes):
        passes.phase("before")
        passes.tape.end(log_probabilities(passes, partial(passes.score, adapters=False)))
        passes.phase("forward")
        return of_rows(passes.tape, log_probabilities(passes, passes.learn))


def test_a_toy_objective_joins(monkeypatch):
    monkeypatch.setitem(table._OBJECTIVES, "twice", Twice())
    recipe = Recipe(loss="fused_head", gradient_checkpointing=True, objective=words.Objective(type="twice"))
    found = estimate_model(resolve("qwen2.5-0.5b"), "lora", recipe)
    assert list(found.phases) == ["before", "forward", "backward", "optimizer"]
    three = Recipe(loss="fused_head", gradient_checkpointing=True, micro_batch_size=3)
    alike = estimate_model(resolve("qwen2.5-0.5b"), "lora", three)
    assert found.phases["backward"] == alike.phases["backward"]
    assert found.plan.validity.ranges["micro_batch_size"] == [1, alike.plan.validity.ranges["micro_batch_size"][1] // 3]


def test_every_row_is_a_word():
    assert set(table._OBJECTIVES) == set(words.OBJECTIVES)


def test_a_reference_that_nothing_asks_is_remarked_upon():
    recipe = {"objective": {"type": "sft", "reference": "copy"}}
    plain, said = (
        memory_answer({"model": "llama-3.2-1b", "method": "lora", "recipe": one})["estimates"][0]
        for one in ({}, recipe)
    )
    assert plain["peak"] == said["peak"]
    assert [row["words"] for row in said["without_effect"]] == [["reference"]]

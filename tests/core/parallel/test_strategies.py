"""A strategy joins as one class and one row: nothing else in the walk knows of it."""

from __future__ import annotations

import pytest

from loralens.core.answer.plan import compile_plan
from loralens.core.parallel.sharded import Sharded
from loralens.core.parallel.strategy import Setting, Strategy
from loralens.core.parallel.table import STRATEGIES, strategy_of
from loralens.core.question.model import named
from loralens.core.question.parallelism import Parallelism
from loralens.core.question.recipe import Recipe
from loralens.core.step.events import record
from loralens.core.step.simulate import run
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import ONE

MODEL = named("qwen2.5-0.5b")
POINT = (1, 64, 8)
LAYERS, ROWS = 24, 2 * 64 * 896  # hidden states of one layer, bfloat16


class Toy(Strategy):
    """Every GPU holds a quarter of the weights, and a buffer of a layer's hidden states while backward runs."""

    weights = 4

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.seen: list[str] = []

    def before_backward(self, t):
        self.seen.append("backward")
        self.buffer = Storage(t.ledger, ONE * ROWS, "temporaries", "toy's buffer")

    def before_layer(self, t, weights, *, ahead):
        self.seen.append("forward")

    def after_layer(self, t, weights, number):
        self.seen.append("done")

    def done(self, t):
        t.end(self.buffer)

    def assumptions(self):
        return ["a toy"]


def test_each_name_has_the_class_of_its_name():
    """The names stand with the word, the classes here: by their order."""
    classes = [strategy.__name__.lower() for strategy in STRATEGIES.values()]
    assert ["none", *classes[1:]] == list(STRATEGIES)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_new_strategy_is_one_class_and_one_row(monkeypatch, method):
    alone = compile_plan(MODEL, method, Recipe())
    monkeypatch.setitem(STRATEGIES, "toy", Toy)
    recipe = Recipe(parallelism=Parallelism(4, "toy"))
    plan = compile_plan(MODEL, method, recipe)
    assert "a toy" in plan.assumptions

    def weights(of):
        first = of.points[0].first.entries
        return sum(size.at(*POINT) for (category, _), size in first.items() if category == "weights")

    assert weights(plan) == pytest.approx(weights(alone) / 4, abs=1000)
    assert weights(plan) < weights(alone)
    held = {label: size for moment in plan.moments for (_, label), size in moment.entries.items()}
    assert held["toy's buffer"].at(*POINT) == ROWS
    assert not any(label == "toy's buffer" for moment in alone.moments for _, label in moment.entries)

    program = record(MODEL, method, recipe)  # and the allocator's simulation asks for what it holds
    assert isinstance(program.strategy, Toy)
    loaded = run(program, [64], batch=1, rank=8).loaded_bytes
    assert loaded < run(record(MODEL, method, Recipe()), [64], batch=1, rank=8).loaded_bytes / 2


def test_every_layer_passes_the_hooks_forward_and_backward(monkeypatch):
    monkeypatch.setitem(STRATEGIES, "toy", Toy)
    walked = []
    monkeypatch.setattr(Toy, "fresh", lambda self: walked.append(type(self)(self.setting)) or walked[-1])
    record(MODEL, "full", Recipe(parallelism=Parallelism(4, "toy")))
    assert walked[0].seen == ["forward"] * LAYERS + ["backward"] + ["done"] * LAYERS


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_fresh_strategy_is_another_object_of_the_same_form(name):
    strategy = strategy_of(Recipe(parallelism=Parallelism(2, name)), adapters=True)
    again = strategy.fresh()
    assert again is not strategy and type(again) is type(strategy)
    assert isinstance(strategy, Sharded)
    assert (again.weights, again.gradients, again.states) == (strategy.weights, strategy.gradients, strategy.states)

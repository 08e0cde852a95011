"""Every tensor, from birth to release, adds up to the plan, whose moments traces of the real libraries hold."""

import itertools

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.answer.lifetimes import lifetimes, lifetimes_answer
from loralens.core.errors import InvalidInput
from loralens.core.question.model import named
from loralens.core.question.recipe import Recipe
from loralens.core.tape.ledger import CATEGORIES

CASES = [
    ("qwen2.5-0.5b", "full", {}),
    ("qwen2.5-0.5b", "dora", {"gradient_checkpointing": True}),
    ("qwen2.5-0.5b", "lora", {"gradient_accumulation_steps": 2, "optimizer": "adamw_8bit"}),
    ("gpt2", "full", {"optimizer_in_backward": True, "attention": "eager"}),
    ("t5-small", "qlora", {"checkpoint_reentrant": True, "gradient_checkpointing": True}),
    ("qwen2.5-0.5b", "lora", {"objective": {"type": "dpo"}}),
    ("qwen2.5-0.5b", "full", {"parallelism": {"gpus": 4, "strategy": "fsdp"}}),
]


def found(model, method, words):
    estimate = estimate_model(named(model), method, Recipe.from_mapping(words))
    return estimate, lifetimes(estimate.model, method, estimate.recipe)


def alive_at(lives, event):
    """Bytes by category after so many events."""
    sums = dict.fromkeys(CATEGORIES, 0)
    kinds = list(lives.kinds)
    now = {number: kind for number, (kind, _, _) in enumerate(lives.tensors)}
    now |= {number: kind for number, at, kind in lives.renames if at < event}
    for kind, _, _ in lives.resting:
        sums[kinds[kind][1]] += kinds[kind][0]
    for number, (_, _, birth) in enumerate(lives.tensors):
        if birth < event <= lives.deaths.get(number, lives.events):
            sums[kinds[now[number]][1]] += kinds[now[number]][0]
    return sums


@pytest.mark.parametrize(("model", "method", "words"), CASES)
def test_the_largest_sum_is_the_peak(model, method, words):
    estimate, lives = found(model, method, words)
    assert lives.peak_bytes() == estimate.allocated_bytes


@pytest.mark.parametrize(("model", "method", "words"), CASES[:2])
def test_what_is_alive_at_a_mark_is_what_the_plan_has_there(model, method, words):
    estimate, lives = found(model, method, words)
    recipe = estimate.recipe
    at = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    events = {(phase, label): event for phase, label, event in lives.marks}
    points = [point for point in estimate.plan.points if (point.phase, point.label) in events and point.repeat == 1]
    assert len(points) > 8
    for point in points:
        sizes = [size.at(*at) for size in point.last.by_category()]
        event = events[point.phase, point.label]
        assert alive_at(lives, event) == dict(zip(CATEGORIES, sizes, strict=True)), (point.phase, point.label)


@pytest.mark.parametrize(("model", "method", "words"), CASES)
def test_the_optimizer_begins_with_what_the_plan_has_in_its_phase(model, method, words):
    """What the graph holds to the last is gone by then: no moment of the optimizer is above its phase's peak."""
    estimate, lives = found(model, method, words)
    sums = {label: sum(alive_at(lives, event).values()) for _, label, event in lives.marks}
    peaks = {row["phase"]: row["peak_bytes"] for row in estimate.to_dict()["phases"]}
    assert sums["graph released"] <= peaks["optimizer"]


def test_a_place_has_what_it_makes_and_what_its_backward_makes():
    _, lives = found("qwen2.5-0.5b", "full", {})
    kinds = list(lives.kinds)
    assert lives.places == ["embeddings", *(f"model.layers.{n}" for n in range(24)), "loss", "elsewhere"]
    by_place = {place: [kinds[kind] for kind, own, _ in lives.tensors if own == place] for place in range(26)}
    assert all(by_place[3] == by_place[layer] for layer in range(4, 24))  # layers of a kind are alike
    assert {name for _, category, name in by_place[25] if category == "logits"} >= {"head", "log-probabilities"}
    weights = {place: sum(kinds[kind][0] for kind, own, _ in lives.resting if own == place) for place in range(27)}
    assert len({weights[layer] for layer in range(1, 25)}) == 1
    assert weights[26] == kinds[lives.resting[-1][0]][0]  # buffers alone


def test_nothing_is_released_before_it_is_there():
    _, lives = found("gpt2", "lora", {})
    for number, death in lives.deaths.items():
        assert lives.tensors[number][2] < death < lives.events + 1
    taken = sorted(itertools.chain((birth for _, _, birth in lives.tensors), lives.deaths.values()))
    assert taken == list(range(lives.events))  # each event is one allocation or one release


def test_a_model_that_is_cut_is_refused():
    with pytest.raises(InvalidInput, match="rank"):
        lifetimes_answer({"model": "qwen2.5-0.5b", "method": "full", "recipe": {"parallelism": {"gpus": 2, "tp": 2}}})

"""A message alone is compared with steps that were walked before: the table is this engine's, and names the tensor of made-up events."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from loralens.core.answer.asked import asked_step
from loralens.core.question.model import named
from loralens.trainers.guess import guessed
from loralens.trainers.guess.build import models, row
from loralens.trainers.guess.index import kept_models, rows
from loralens.trainers.guess.set_ups import SET_UPS
from loralens.trainers.guess.steps import Repeats, StepArrays
from loralens.trainers.oom import read_message

EVENTS = Path(__file__).parents[1] / "oracles" / "oom-events.jsonl"
"""Events of any model of the catalogue: `python tests/trainers/oom_events.py 200 2026 tests/oracles/oom-events.jsonl`."""
AGAIN = "run: python -m loralens.trainers.guess.build, with the models whose step has changed"


def test_the_table_has_nearly_every_model_of_the_catalogue():
    """A message is compared with those that it has, and the answer says how many they are."""
    kept, wanted = {one["id"] for one in rows()}, set(models())
    assert kept <= wanted
    assert len(wanted - kept) <= len(wanted) // 10, AGAIN


@pytest.mark.parametrize("id_", ["smollm2-135m"])
def test_a_models_line_is_what_the_engine_walks_now(id_):
    kept = next(one for one in rows() if one["id"] == id_)
    assert kept == json.loads(json.dumps(row(id_))), AGAIN


def test_drawn_steps_are_what_the_engine_walks_now():
    """Each request that is kept, with all that is alive before it."""
    chance = random.Random(7)
    for model in chance.sample([one for one in kept_models() if one.steps], 6):
        number = chance.randrange(len(model.steps))
        step, set_up = model.steps[number], SET_UPS[model.steps[number].set_up]
        words = {"gradient_checkpointing": step.checkpointing, "attention": step.attention}
        low, high = model.ranges[number][0]
        recipe = set_up.recipe(words, (max(low, min(2, high)), max(model.ranges[number][1][0], 2048)), 8, "adamw_fused")
        walked = asked_step(named(model.id), set_up.method, recipe)
        every = {(one.label, one.category, one.phase, tuple(one.size), tuple(one.alive)) for one in walked.requests}
        rest = model.sizes[model.resting[step.set_up][0]]
        alive = model.arrays(number).alive + rest
        for place, request in enumerate(model.request[step.start : step.end].tolist()):
            size = tuple(model.sizes[model.size_of[request]].astype(int).tolist())
            assert (*model.requests[request], size, tuple(alive[place].astype(int).tolist())) in every, (
                model.id,
                AGAIN,
            )


def test_what_exceeds_all_before_it_fails_there():
    """Three layers that add ten bytes each, by hand: 100 rest, each asks for 30 and for 20, of which 10 stay."""
    constant = np.zeros((2, 9))
    constant[:, 0] = 30, 20
    alive = np.zeros((2, 9))
    alive[:, 0] = 100, 105
    change = np.zeros(9)
    change[0] = 10
    moments = StepArrays(constant, alive, (Repeats(0, 2, change, 2),)).at(np.eye(9)[:, :1])
    assert moments.most.tolist() == [150]
    first, second = np.array([0, 0]), np.array([0, 0])
    assert moments.exceeds(first, second, np.array([0.0, 1.0])).tolist() == [30, 10]
    assert moments.exceeds(np.array([1, 1]), second, np.array([0.0, 1.0])).tolist() == [-5, -5]


def test_a_message_alone_names_the_tensor_among_three():
    """Some of the events; all of them: docs/trainers.md."""
    found = [json.loads(line) for line in EVENTS.read_text(encoding="utf-8").splitlines()]
    places = []
    for event in random.Random(1).sample(found, 24):
        named_rows = [(one["name"], one["phase"]) for one in guessed(read_message(event["text"])).tensors]
        places.append((*named_rows, (event["name"], event["phase"])).index((event["name"], event["phase"])))
    assert sum(place < 3 for place in places) >= 0.7 * len(places)


def test_shares_say_how_sure_it_is():
    text = json.loads(EVENTS.read_text(encoding="utf-8").splitlines()[0])["text"]
    answer = guessed(read_message(text))
    shares = [one["share"] for one in answer.tensors]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1 + 1e-9
    assert len(answer.tensors[0]["set_ups"]) >= 1


def test_without_what_was_allocated_only_common_models_are_looked_at():
    answer = guessed(
        read_message("CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 24.00 GiB")
    )
    assert answer.models == 24
    assert {one["category"] for one in answer.tensors[:2]} == {"logits"}

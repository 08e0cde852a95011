"""Lengths of samples: percentiles of batches against drawn ones, and each batch's memory against a question of that length."""

import random
from itertools import chain

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.answer.lengths import Lengths
from loralens.core.errors import InvalidInput

PAIRS = [[120, 500], [300, 300], [700, 150], [1500, 45], [6000, 5]]
BODY = {
    "model": "qwen2.5-0.5b", "method": "lora", "gpu": "t4", "lengths": PAIRS,
    "recipe": {"micro_batch_size": 4, "sequence_length": 2048, "gradient_checkpointing": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def answer():
    return memory_answer(BODY)["estimates"][0]["lengths"]


def test_batches_are_as_long_as_their_longest_sample(answer):
    population = list(chain.from_iterable([min(tokens, 2048)] * samples for tokens, samples in PAIRS))
    draw = random.Random(1)
    longest = sorted(max(draw.choices(population, k=4)) for _ in range(20_000))
    for row in answer["batches"][:-1]:
        at = int(row["percent"] / 100 * 20_000)
        assert row["sequence_length"] in (longest[max(0, at - 60)], longest[min(19_999, at + 60)])
    mean = sum(longest) / len(longest)
    assert 1 - answer["tokens"] / answer["samples"] / mean == pytest.approx(answer["padding"], abs=0.01)


def test_each_batch_is_a_question_of_that_length(answer):
    for row in answer["batches"]:
        recipe = {**BODY["recipe"], "sequence_length": row["sequence_length"], "padded": True}
        (alone,) = memory_answer({"model": BODY["model"], "method": "lora", "gpu": "t4", "recipe": recipe})["estimates"]
        assert row["allocated_bytes"] == alone["peak"]["allocated_bytes"]
        assert row["needed_bytes"] == alone["peak"]["needed_bytes"]
        assert row["fits"][0]["verdict"] == alone["fits"][0]["verdict"]


def test_the_worst_batch_holds_the_longest_sample(answer):
    worst = answer["batches"][-1]
    assert (worst["percent"], worst["sequence_length"], answer["longest"], answer["cut"]) == (100.0, 2048, 6000, 5)
    assert answer["packed_rows"] == -(-answer["tokens"] // 2048)
    assert answer["epoch_batches"] == 250
    assert 1 < answer["packing_gain"] < 5


def test_one_length_has_no_padding_and_nothing_to_gain():
    lengths = {"512": 64}
    found = memory_answer({**BODY, "lengths": lengths, "recipe": {**BODY["recipe"], "sequence_length": 512}})
    own = found["estimates"][0]["lengths"]
    assert (own["padding"], own["packing_gain"]) == (0, 1)
    assert {row["sequence_length"] for row in own["batches"]} == {512}


def test_an_epoch_ends_where_there_is_room_and_not_where_the_worst_batch_is_too_large():
    few = {"recipe": {**BODY["recipe"], "sequence_length": 1024}, "allocator": "simulated"}
    ends, fails = (
        memory_answer({**BODY, **few, "gpu": gpu})["estimates"][0]["lengths"]["epoch"]
        for gpu in ("l40s", "custom:3GiB")
    )
    assert (ends["ended"], ends["failing_share"]) == (ends["runs"], 0)
    assert (fails["ended"], fails["failing_share"]) == (0, 1)


@pytest.mark.parametrize("given", [[], [[0, 1]], [[5]], "all", [[1, 2, 3]], {"a": 1}, [[10, True]], [[1.5, 2]]])
def test_what_is_no_histogram_is_refused(given):
    with pytest.raises(InvalidInput, match="lengths must be"):
        memory_answer({**BODY, "lengths": given})


def test_equal_lengths_are_added_up():
    assert Lengths.read([[5, 1], [3, 2], [5, 4]]) == Lengths((3, 5), (2, 5))

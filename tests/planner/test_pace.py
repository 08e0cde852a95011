"""How long: of the card where its rate is known, of cards of its size where it is not, and never invented."""

import pytest

from loralens.core.catalogue import gpu
from loralens.planner.fit import fit_answer
from loralens.planner.pace import SHOWN, pace
from loralens.planner.question import read_question
from loralens.planner.time import training_time

QUESTION = read_question({"model": "8B", "method": "qlora"})[0]


def test_a_known_card_answers_for_itself() -> None:
    (row,) = pace(QUESTION, gpu("rtx-4090"), 10**6)
    hours = training_time(QUESTION, gpu("rtx-4090"), 10**6)["gpu_hours"]
    cost = training_time(QUESTION, gpu("rtx-4090"), 10**6)["cost"][0]["expected_usd"]
    assert row == {"gpu": "rtx-4090", "name": "GeForce RTX 4090", **hours, "expected_usd": cost}


def test_a_card_known_by_memory_alone_gets_the_range_over_cards_of_that_size() -> None:
    body = {"model": "8B", "method": "lora", "gpu": "24GB", "tokens": 10**6}
    found = fit_answer(body)["time"]
    assert found["gpu_hours"]["expected"] is None
    assert [row["gpu"] for row in found["alike"]][-1] == "rtx-4090"
    assert found["alike"][0]["expected"] > found["alike"][-1]["expected"]
    assert fit_answer(body | {"gpu": "rtx-4090"})["time"]["alike"] == []


def test_a_size_alone_is_answered_by_cards_of_that_size() -> None:
    rows = pace(QUESTION, gpu("24GB"), 10**6)
    assert len(rows) == SHOWN
    assert all(gpu(row["gpu"]).marketing_memory_gb == 24 for row in rows)
    assert [row["expected"] for row in rows] == sorted((row["expected"] for row in rows), reverse=True)
    assert rows[-1]["gpu"] == "rtx-4090"


@pytest.mark.parametrize("device", ["custom:7GiB", "custom:23GiB"])
def test_no_card_of_that_size_is_no_answer(device: str) -> None:
    assert pace(QUESTION, gpu(device), 10**6) == []

"""What makes a step quicker: it still fits, the time says so, and a 4-bit base that is unpacked to float32 comes first."""

import pytest

from loralens.core.catalogue import gpu
from loralens.planner.question import read_question
from loralens.planner.quicker import quicker
from loralens.planner.time import training_time


def asked(method: str = "qlora", **recipe: object):  # type: ignore[no-untyped-def]
    return read_question({"model": "7B", "method": method, "recipe": recipe})[0]


def test_every_row_is_what_the_changed_step_takes() -> None:
    question, device = asked(trainer="trl", micro_batch_size=4), gpu("h100")
    rows = quicker(question, device)
    assert rows[0]["field"] == "compute_dtype"
    assert [row["time_ratio"] for row in rows[1:]] == sorted(row["time_ratio"] for row in rows[1:])
    before = training_time(question, device, 1_000_000)["step_seconds"]["expected"]
    for row in rows:
        changed = question.with_(row["field"], row["to"])
        after = training_time(changed, device, 1_000_000)["step_seconds"]["expected"]
        assert row["saves_seconds"] == pytest.approx(before - after)
        assert row["time_ratio"] == pytest.approx(after / before)
        assert row["needed_bytes"] == changed.estimate().overhead.needed[1] <= device.memory_bytes


def test_without_autocast_float32_costs_most_and_that_is_said() -> None:
    row = quicker(asked(trainer="trl", autocast=None, micro_batch_size=4), gpu("h100"))[0]
    assert (row["field"], row["to"], row["why"]["key"]) == ("compute_dtype", "bfloat16", "compute_dtype_alone")
    assert row["time_ratio"] < 0.7
    assert all(row["field"] != "compute_dtype" for row in quicker(asked(), gpu("h100")))


def test_what_does_not_fit_without_checkpointing_keeps_it() -> None:
    question = read_question({"model": "7B", "method": "lora", "recipe": {"micro_batch_size": 8, "padded": True}})[0]
    fields = [row["field"] for row in quicker(question, gpu("rtx-4090"))]
    assert "gradient_checkpointing" not in fields


def test_a_card_without_a_rate_has_none() -> None:
    assert quicker(asked(trainer="trl"), gpu("custom:24GiB")) == []

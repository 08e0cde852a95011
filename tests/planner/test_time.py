"""Time and cost: sourced rates, unknowns that stay unknown, and assumptions that are stated."""

import pytest

from loralens.core.catalogue import gpu, gpus
from loralens.planner.question import read_question
from loralens.planner.time import ASSUMED_UTILIZATION, training_time


def ask(method: str = "lora", **recipe: object):  # type: ignore[no-untyped-def]
    return read_question({"model": "7B", "method": method, "recipe": recipe})[0]


def test_hours_are_operations_over_rate() -> None:
    found = training_time(ask(), gpu("a100"), 1_000_000)
    per_second = 271.2e12  # measured matrix products, as the catalogue cites
    assert found["gpu_hours"]["least"] == pytest.approx(found["flops"] / per_second / 3600)
    assert found["gpu_hours"]["expected"] == pytest.approx(found["flops"] / (312e12 * ASSUMED_UTILIZATION) / 3600)
    assert "ml-engineering" in found["rate"]["achievable_source"]
    assert found["rate"]["utilization_basis"] == "assumption"


def test_a_given_utilization_is_no_assumption() -> None:
    found = training_time(ask(), gpu("a100"), 1_000_000, 0.5)
    assert found["rate"]["expected_flops_per_second"] == 156e12
    assert found["rate"]["utilization_basis"] == "given"
    assert not any("reaches" in text for text in found["assumptions"])


def test_what_is_not_known_stays_unknown() -> None:
    found = training_time(ask(), gpu("v100"), 1_000_000)  # Volta has no bfloat16 units
    assert found["gpu_hours"] == {"least": None, "expected": None}
    assert any("not known" in text for text in found["assumptions"])
    found = training_time(ask(), gpu("h20"), 1_000_000)
    assert found["cost"] == []
    assert any("no price" in text for text in found["assumptions"])


def test_every_gpu_gets_an_answer_and_every_cost_a_source_and_a_date() -> None:
    for device in gpus():
        found = training_time(ask(), device, 1_000)
        for row in found["cost"]:
            assert row["source"] and row["date"]
            hours = found["gpu_hours"]["expected"]
            assert row["expected_usd"] == (None if hours is None else hours * row["usd_per_gpu_hour"])
        prices = [row["usd_per_gpu_hour"] for row in found["cost"]]
        assert prices == sorted(prices)


def test_lora_saves_a_third_of_the_weight_products_and_no_more() -> None:
    full = training_time(ask("full"), gpu("a100"), 1)["flops_per_token"]
    lora = training_time(ask("lora"), gpu("a100"), 1)["flops_per_token"]
    assert lora["weight_gradients"] == 0
    assert full["weight_gradients"] == full["forward"] == lora["forward"] == lora["input_gradients"]
    assert 2 / 3 < lora["total"] / full["total"] < 0.7


def test_the_compute_dtype_decides_the_rate() -> None:
    rate = training_time(ask("full", weights_dtype="float32", autocast=None), gpu("a100"), 1)["rate"]
    assert (rate["dtype"], rate["dense_flops_per_second"]) == ("float32", 19_500_000_000_000)

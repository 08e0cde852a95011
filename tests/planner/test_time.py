"""Time and cost: sourced rates, unknowns that stay unknown, and assumptions that are stated."""

import pytest

from loralens.core.catalogue import gpu, gpus
from loralens.core.errors import InvalidInput
from loralens.planner.fit import fit_answer, pace_of, withheld_of
from loralens.planner.question import read_question
from loralens.planner.time import gpu_hours, training_time


def ask(method: str = "lora", **recipe: object):  # type: ignore[no-untyped-def]
    return read_question({"model": "7B", "method": method, "recipe": recipe})[0]


def test_hours_are_operations_over_rate() -> None:
    found = training_time(ask(), gpu("a100"), 1_000_000)
    per_second = 271.2e12  # measured matrix products, as the catalogue cites
    assert found["gpu_hours"]["least"] == pytest.approx(found["flops"] / per_second / 3600)
    assert found["gpu_hours"]["expected"] == pytest.approx(1_000_000 / found["tokens_per_second"]["expected"] / 3600)
    assert found["gpu_hours"]["low"] < found["gpu_hours"]["expected"] < found["gpu_hours"]["high"]
    assert found["gpu_hours"]["expected"] == pytest.approx(
        gpu_hours(gpu("a100"), "bfloat16", found["flops"], found["rate"]["utilization"])
    )
    assert "ml-engineering" in found["rate"]["achievable_source"]
    assert found["rate"]["utilization_basis"] == "computed"
    assert sum(found["step_seconds"]["parts"].values()) == pytest.approx(found["step_seconds"]["expected"])


def test_a_given_utilization_is_no_assumption() -> None:
    found = training_time(ask(), gpu("a100"), 1_000_000, 0.5)
    assert found["rate"]["expected_flops_per_second"] == 156e12
    assert found["rate"]["utilization_basis"] == "given"
    assert found["gpu_hours"]["expected"] == pytest.approx(found["flops"] / 156e12 / 3600)
    assert not any("operations at rates" in text for text in found["assumptions"])


def test_what_is_not_known_stays_unknown() -> None:
    found = training_time(ask(), gpu("v100"), 1_000_000)  # Volta has no bfloat16 units
    assert found["gpu_hours"] == dict.fromkeys(("least", "expected", "low", "high"))
    assert found["step_seconds"] is None
    assert found["tokens_per_second"] is None
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


def test_markets_are_never_mixed() -> None:
    for market, other in (("on-demand", "spot"), ("spot", "reserved"), ("reserved", "on-demand")):
        found = training_time(ask(), gpu("a100-pcie-80"), 1_000_000, market=market)
        assert {row["market"] for row in found["cost"]} == {market}
        elsewhere = {row["market"] for row in found["cost_elsewhere"]}
        assert other in elsewhere and market not in elsewhere
        assert any(text.startswith(f"{market}: ") for text in found["assumptions"]) == (market != "on-demand")
    found = training_time(ask(), gpu("rtx-4090"), 1_000_000, market="spot")
    assert found["cost"] == [] != found["cost_elsewhere"]
    assert "no spot price of GeForce RTX 4090 is known" in found["assumptions"]
    with pytest.raises(InvalidInput, match="on-demand, spot, reserved"):
        training_time(ask(), gpu("a100"), 1_000_000, market="auction")


def test_lora_saves_a_third_of_the_weight_products_and_no_more() -> None:
    full = training_time(ask("full", gradient_checkpointing=False), gpu("a100"), 1)["flops_per_token"]
    lora = training_time(ask("lora", gradient_checkpointing=False), gpu("a100"), 1)["flops_per_token"]
    assert lora["weight_gradients"] == 0
    assert full["weight_gradients"] == full["forward"] == lora["forward"] == lora["input_gradients"]
    assert 2 / 3 < lora["total"] / full["total"] < 0.7


def test_the_compute_dtype_decides_the_rate() -> None:
    rate = training_time(ask("full", weights_dtype="float32", autocast=None), gpu("a100"), 1)["rate"]
    assert (rate["dtype"], rate["dense_flops_per_second"]) == ("float32", 19_500_000_000_000)


def test_a_short_step_is_a_range() -> None:
    short, long = (training_time(ask(sequence_length=length), gpu("a100"), 1_000_000) for length in (128, 4096))
    assert short["step_seconds"]["range"]
    assert short["step_seconds"]["high"] > 2.5 * short["step_seconds"]["low"]
    assert not long["step_seconds"]["range"]
    assert long["step_seconds"]["high"] < 1.5 * long["step_seconds"]["low"]


def test_a_card_without_runs_says_so_and_has_a_wider_band() -> None:
    known, guessed = (training_time(ask(), gpu(name), 1_000_000) for name in ("a100", "b200-sxm"))
    assert (known["step_seconds"]["basis"], guessed["step_seconds"]["basis"]) == ("fitted", "class")
    width = [row["step_seconds"]["high"] / row["step_seconds"]["low"] for row in (known, guessed)]
    assert width[0] < width[1]
    assert any("no published run on B200" in text for text in guessed["assumptions"])


def test_several_gpus_share_the_tokens() -> None:
    one = training_time(ask(), gpu("a100"), 1_000_000)
    four = training_time(ask(parallelism={"gpus": 4, "strategy": "ddp"}), gpu("a100"), 1_000_000)
    assert 2.5 < four["tokens_per_second"]["expected"] / one["tokens_per_second"]["expected"] <= 4
    assert one["gpu_hours"]["expected"] <= four["gpu_hours"]["expected"] < 1.5 * one["gpu_hours"]["expected"]


def test_a_tower_whose_places_are_added_has_its_operations_counted():
    found = fit_answer({"model": "kimi-vl-a3b", "method": "lora", "gpu": "h200", "tokens": 10**6})["time"]
    assert (
        found is not None and found["flops_per_token"]["forward"] > 2 * 2e9
    )  # about 2.8 billion parameters meet a token


LOW = {"objective": {"type": "grpo"}, "rollout": {"engine": "vllm", "utilization": 0.1}}


@pytest.mark.parametrize("own", [{}, {"utilization": 0.4}])
@pytest.mark.parametrize("device", ["rtx-4090", "24GB"])
def test_a_run_whose_engine_cannot_start_has_neither_time_nor_cost(device: str, own: dict[str, float]) -> None:
    body = {"model": "7B", "gpu": device, "tokens": 10**6, "recipe": LOW} | own
    answer = fit_answer(body)
    found = answer["time"]
    assert answer["verdict"] == "does_not_fit"
    assert found["withheld"]["key"] == "engine"
    assert found["gpu_hours"] == dict.fromkeys(("least", "expected", "low", "high"))
    assert found["step_seconds"] is found["tokens_per_second"] is found["iteration"] is None
    assert found["run"]["iterations"] is None
    assert found["alike"] == [] == pace_of(body, 10**6)
    assert all(row["expected_usd"] is row["least_usd"] is None for row in found["cost"])
    assert found["run"]["samples"] > 0
    assert not any("is not known" in text for text in found["assumptions"])  # it is known why


def test_what_goes_between_gpus_is_waiting_and_sharding() -> None:
    step = training_time(ask(parallelism={"gpus": 8, "strategy": "fsdp2"}), gpu("rtx-4090"), 1_000_000)["step_seconds"]
    assert step is not None
    exchange = step["exchange"]
    assert exchange["waited"] > 0 < exchange["sharding"]
    assert sum(exchange.values()) == pytest.approx(step["parts"]["communication"])


def test_with_a_share_that_is_enough_there_is_a_time() -> None:
    body = {"model": "7B", "gpu": "h100-sxm", "tokens": 10**6, "recipe": LOW | {"rollout": {"engine": "vllm"}}}
    found = fit_answer(body)["time"]
    assert found["withheld"] is None is withheld_of(body)
    assert found["gpu_hours"]["expected"] > found["gpu_hours"]["least"] > 0

"""An engine that generates beside the model that learns: shares of a card, by hand."""

import pytest

from loralens.core import catalogue
from loralens.core.answer.answers import memory_answer
from loralens.core.answer.iteration import ASLEEP, GRAPHS
from loralens.core.answer.overhead import needed_by_rule
from loralens.core.errors import InvalidInput

GRPO = {"type": "grpo"}
RECIPE = {
    "micro_batch_size": 8,
    "padded": True,
    "gradient_checkpointing": True,
    "loss": "fused_head",
    "labelled_tokens": 1024,
    "objective": GRPO,
}


def answered(gpu="h100-sxm", method="lora", **rollout):
    body = {"model": "qwen3-8b", "method": method, "gpu": gpu, "recipe": {**RECIPE, "rollout": rollout}}
    return memory_answer(body)["estimates"][0]


def test_only_an_objective_with_a_rollout_has_an_iteration():
    assert "iteration" not in memory_answer({"model": "qwen2.5-0.5b", "method": "lora"})["estimates"][0]
    found = answered(engine="server")["iteration"]
    assert found["engine"] is None
    assert [row["phase"] for row in found["phases"]] == ["old_logprobs", "forward", "backward", "optimizer"]


def test_an_engine_takes_weights_and_a_cache():
    """Qwen3-8B: 36 layers, 8 key-value heads of 128, two tensors of two bytes."""
    engine = answered(engine="vllm")["iteration"]["engine"]
    assert engine["weights_bytes"] == 8_190_735_360 * 2
    assert engine["kv_bytes_per_token"] == 36 * 8 * 128 * 2 * 2
    assert engine["kv_bytes_per_sequence"] == 2048 * engine["kv_bytes_per_token"]
    assert 4096 * 4096 * 2 < engine["profile_bytes"] < 2**30


def test_the_share_that_fits_is_what_the_rollout_leaves():
    answer = answered(engine="vllm", utilization=0.4)
    found = answer["iteration"]
    card, engine = catalogue.gpu("h100-sxm").memory_bytes, found["engine"]
    held = sum(found["resident_bytes"].values())
    row = found["cards"][0]
    assert row["verdict"] == answer["fits"][0]["verdict"] == "fits"
    assert row["utilization"]["most"] == (card - needed_by_rule(held, "h100-sxm")[0]) * 100 // card / 100
    fixed = engine["weights_bytes"] + engine["profile_bytes"]
    low, high = row["sequences"]
    assert high == (int(card * 0.4) - fixed) // engine["kv_bytes_per_sequence"]
    assert low == (int(card * 0.4) - fixed - GRAPHS[1]) // engine["kv_bytes_per_sequence"]


def test_sglangs_share_is_of_what_is_free_when_it_starts():
    """Weights and cache lie in it, by hand; a pass and the graphs beside it (`profile_max_num_token`)."""
    answer = answered(engine="sglang", mem_fraction_static=0.5)
    found = answer["iteration"]
    card, engine, held = catalogue.gpu("h100-sxm").memory_bytes, found["engine"], found["resident_bytes"]
    free = card - needed_by_rule(held["weights"] + held["adapter"], "h100-sxm")[0]
    row = found["cards"][0]
    assert engine["share_of"] == "free"
    assert row["sequences"] == [(int(free * 0.5) - engine["weights_bytes"]) // engine["kv_bytes_per_sequence"]] * 2
    beside = card - needed_by_rule(sum(held.values()), "h100-sxm")[0]
    most = beside - engine["profile_bytes"] - GRAPHS[1]
    assert row["utilization"]["most"] == most * 100 // free / 100
    assert any(line.startswith("SGLang: mem_fraction_static") for line in answer["assumptions"])


def test_an_engine_may_be_cut_among_cards_and_have_the_trainer_out_of_its_way():
    cards = {"gpus": 4, "strategy": "fsdp"}

    def found(**rollout):
        recipe = {**RECIPE, "parallelism": cards, "rollout": {"engine": "vllm", **rollout}}
        body = {"model": "qwen3-8b", "method": "full", "gpu": "h100-sxm", "recipe": recipe}
        return memory_answer(body)["estimates"][0]["iteration"]

    whole, cut = found(), found(tensor_parallel=2)
    assert cut["engine"]["weights_bytes"] == whole["engine"]["weights_bytes"] // 2
    assert cut["engine"]["kv_bytes_per_token"] == whole["engine"]["kv_bytes_per_token"] // 2
    held = whole["resident_bytes"]
    rows = {away: found(trainer_offload=away)["phases"] for away in ("none", "optimizer", "parameters")}
    generating = {away: [row["trainer_bytes"] for row in phases[:2]] for away, phases in rows.items()}
    assert generating["none"] == [sum(held.values())] * 2
    assert generating["optimizer"] == [held["weights"]] * 2
    assert generating["parameters"] == [held["weights"], 0]  # handed over, then out of the way
    most = [found(trainer_offload=away)["cards"][0]["utilization"]["most"] for away in rows]
    assert most == sorted(most) and most[0] < most[2]


def test_an_engine_on_more_cards_than_there_are_is_refused():
    with pytest.raises(InvalidInput, match="rollout_tp must not be above"):
        answered(engine="vllm", tensor_parallel=2)


def test_what_sglang_releases_decides_what_learns_beside_it():
    def headroom(release):
        row = answered(engine="sglang", memory_release=release, mem_fraction_static=0.3)["iteration"]
        return row["cards"][0]["headroom_bytes"], {phase["engine"] for phase in row["phases"]}

    assert headroom("weights")[0] > headroom("nothing")[0]
    assert headroom("nothing")[1] == {"weights", "awake"}
    small = answered("rtx-4090", engine="sglang", memory_release="kv_cache", mem_fraction_static=0.9)["iteration"]
    assert small["cards"][0]["utilization"] is None  # the learner does not fit beside the engine's weights


def test_an_engine_that_does_not_sleep_leaves_less():
    asleep, awake = (answered(engine="vllm", sleep_level=level)["iteration"] for level in (2, 0))
    assert awake["cards"][0]["utilization"]["most"] < asleep["cards"][0]["utilization"]["most"]
    assert {row["engine"] for row in awake["phases"]} == {"weights", "awake"}
    assert {row["engine"] for row in asleep["phases"]} == {"weights", "awake", "asleep"}


def test_no_share_fits_where_learning_alone_fills_the_card():
    found = answered(gpu="rtx-4090", engine="vllm")
    assert found["iteration"]["cards"][0]["utilization"] is None
    assert found["fits"][0]["verdict"] == "does_not_fit"
    assert found["fits"][0]["headroom_bytes"] < 0


def test_what_no_source_settles_is_an_assumption_with_a_range():
    said = " ".join(answered(engine="vllm")["assumptions"])
    assert "0 to 2 GiB, assumption" in said
    assert f"{ASLEEP[0] / 2**30:.1f} to {ASLEEP[1] / 2**30:.1f} GiB (assumption" in said


@pytest.mark.parametrize("method", ["qlora"])
def test_a_packed_base_is_packed_in_the_engine_too(method):
    engine = answered(method=method, engine="vllm")["iteration"]["engine"]
    assert engine["weights_bytes"] < 8_190_735_360

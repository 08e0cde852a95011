"""What several GPUs and their frameworks add, term by term, against figures worked out by hand."""

from __future__ import annotations

import pytest

from loralens.core.answer.estimate import estimate
from loralens.core.errors import InvalidInput

LAYER_7B = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096  # weights of a Llama-2-7B layer
ADAPTER = {"rank": 8, "target_modules": ("q_proj", "v_proj"), "adapter_dtype": "bfloat16"}


def entries(found):
    """Bytes by label at the peak."""
    return {label: size.at(*found.point) for (_, label), size in found.moment.entries.items()}


@pytest.mark.parametrize("strategy", ["zero1", "zero2"])
def test_deepspeed_makes_its_reduce_bucket_for_backward(strategy):
    words = {"gpus": 2, "strategy": strategy, **ADAPTER}
    alone, shared = estimate("7B", "lora", **ADAPTER), estimate("7B", "lora", **words)
    assert entries(shared)["DeepSpeed's reduce bucket"] == 2 * 500_000_000
    moved = shared.phases["backward"] - alone.phases["backward"]
    trainable = alone.trainable_parameters
    # float32 master weights and moments of one half, in place of two 16-bit moments and their counters
    assert moved == pytest.approx(10**9 + trainable * (12 / 2 - 4), abs=4096)
    assert shared.phases["forward"] < shared.phases["backward"] - 10**9 // 2


def test_deepspeed_step_turns_the_partition_into_float32():
    found = estimate("7B", "full", gpus=4, strategy="zero2", sequence_length=16, optimizer="adamw_foreach")
    assert found.phase == "optimizer"
    assert entries(found)["optimizer step"] == pytest.approx(found.trainable_parameters / 4 * 6, rel=1e-6)


@pytest.mark.parametrize(("said", "elements"), [(None, 500_000_000), ("auto", 4096**2), (10_000_000, 10_000_000)])
def test_deepspeeds_bucket_is_as_large_as_said(said, elements):
    """transformers' "auto": the hidden size squared."""
    found = estimate("7B", "lora", gpus=2, strategy="zero2", reduce_bucket_size=said, **ADAPTER)
    assert entries(found)["DeepSpeed's reduce bucket"] == 2 * elements


def test_zero3_keeps_small_weights_whole_and_prefetches_as_said():
    words = {"gpus": 8, "strategy": "zero3", "gradient_checkpointing": True, **ADAPTER}
    found = estimate("7B", "lora", persistence_threshold="auto", prefetch_bucket_size=0, **words)
    norms = 65 * 4096 * 2
    adapters = 2 * sum(size for size in (8 * 4096,) * 4 if size <= 40_960) * 32
    assert entries(found)["small weights, whole"] == pytest.approx((norms + adapters) * 7 / 8, abs=64)
    short = {**words, "sequence_length": 16, "gradient_checkpointing": False}
    at_once, ahead = (estimate("7B", "lora", prefetch_bucket_size=size, **short) for size in (0, None))
    assert at_once.allocated_bytes == ahead.allocated_bytes - 2 * 50_000_000


def test_hpz_holds_a_second_copy_inside_a_machine_and_backward_gathers_there():
    words = {"gpus": 32, "strategy": "zero3", **ADAPTER}
    plain, second = (estimate("7B", "lora", hpz_partition=group, **words) for group in (None, 8))
    weights = sum(item.parameter.bytes.at(*second.point) * item.count for item in second.plan.held)
    held = entries(second)["second copy of the weights, a machine's part"]
    assert held == pytest.approx(weights / 8, rel=1e-6)
    assert second.allocated_bytes - plain.allocated_bytes == held
    gathered = {
        row["over"]: row["bytes"]
        for row in second.communication
        if row["kind"] == "all_gather" and row["phase"] == "backward"
    }
    assert set(gathered) == {"hpz"}
    assert gathered["hpz"] == sum(
        r["bytes"] for r in plain.communication if r["kind"] == "all_gather" and r["phase"] == "backward"
    )
    away = estimate("7B", "lora", hpz_partition=8, offload="parameters", **words)
    assert "second copy of the weights, a machine's part" not in entries(away)
    with pytest.raises(InvalidInput, match="groups of 5"):
        estimate("7B", "lora", hpz_partition=5, **words)


def test_zero3_fetches_modules_and_keeps_the_end_of_the_model():
    found = estimate("7B", "lora", gpus=8, strategy="zero3", gradient_checkpointing=True, **ADAPTER)
    parts = entries(found)
    assert parts["weights kept gathered for their backward"] == 2 * 500_000_000
    assert "weights of the root unit, gathered" not in parts
    small = estimate("qwen2.5-0.5b", "lora", gpus=8, strategy="zero3", **ADAPTER)
    frozen = small.total_parameters - small.trainable_parameters
    assert entries(small)["weights kept gathered for their backward"] == pytest.approx(2 * frozen, rel=0.01)


def test_on_one_gpu_zero3_gathers_nothing():
    parts = entries(estimate("7B", "lora", gpus=1, strategy="zero3", **ADAPTER))
    assert not any("gathered" in label or "fetched" in label for label in parts)


@pytest.mark.parametrize(("accumulation", "shards"), [(1, 2), (16, 1)])
def test_litgpt_units_have_gradients_as_large_as_their_weights(accumulation, shards):
    """Lightning-AI/litgpt issue 1417; unsharded while they accumulate without synchronization."""
    found = estimate(
        "7B",
        "lora",
        gpus=2,
        strategy="fsdp",
        autocast=None,
        gradient_checkpointing=True,
        gradient_accumulation_steps=accumulation,
        stack={"framework": "litgpt"},
        sequence_length=256,
        **ADAPTER,
    )
    assert any("spans its frozen weights" in text for text in found.plan.assumptions)
    adapters = found.trainable_parameters // 32
    held = found.breakdown["gradients_bytes"]
    assert held == pytest.approx(
        32 * 2 * (LAYER_7B + adapters) / shards, rel=0.07
    )  # the peak lies one or two layers before the end
    plain = estimate(
        "7B",
        "lora",
        gpus=2,
        strategy="fsdp",
        autocast=None,
        gradient_checkpointing=True,
        sequence_length=256,
        **ADAPTER,
    )
    assert plain.breakdown["gradients_bytes"] < 10**8


def test_torchtune_shards_a_large_vocabulary_apart():
    words = {"gpus": 8, "strategy": "fsdp", "autocast": None, "gradient_checkpointing": True, "loss": "chunked"}
    apart = estimate("llama-3.1-8b", "full", stack={"framework": "torchtune"}, **words)
    whole = estimate("llama-3.1-8b", "full", **words)
    assert any("units of their own" in text for text in apart.plan.assumptions)
    root = "weights of the root unit, gathered"
    assert entries(apart).get(root, 0) < 10_000_000 < 2 * 128_256 * 4096 <= entries(whole)[root]


@pytest.mark.parametrize(("version", "keeps"), [("0.41.1", True), ("0.50", False)])
def test_four_bit_layers_of_old_bitsandbytes_keep_their_inputs(version, keeps):
    words = {
        "quantization": {"type": "nf4", "prepare_kbit": False},
        "autocast": None,
        "gradient_checkpointing": False,
        **ADAPTER,
    }
    found = estimate("7B", "qlora", stack={"bitsandbytes": version}, **words)
    # per token and layer the second norm's result and the MLP's product: the adapters keep the first norm's, and the
    # attention kernel its own
    expected = 2048 * 32 * 2 * (4096 + 11008) if keeps else 0
    assert found.allocated_bytes - estimate("7B", "qlora", **words).allocated_bytes == expected


@pytest.mark.parametrize(
    ("words", "said"), [({"gpus": 8}, False), ({"gpus": 32}, True), ({"gpus": 32, "ep": 8}, False)]
)
def test_experts_that_are_fewer_than_the_shards_are_filled_up_and_it_is_said(words, said):
    found = estimate("mixtral-8x7b", "lora", strategy="fsdp2", **ADAPTER, **words)
    assert ("8 experts among 32 GPUs" in " ".join(found.assumptions())) == said

"""What must hold of any number of GPUs, whatever the model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core.answer.estimate import estimate
from loralens.core.question.parallelism import STRATEGIES

MODEL = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 4096, "tie_word_embeddings": False,
}  # fmt: skip
WORDS = st.fixed_dictionaries(
    {
        "micro_batch_size": st.integers(1, 3),
        "sequence_length": st.sampled_from([16, 300, 2048]),
        "gradient_checkpointing": st.booleans(),
        "gradient_accumulation_steps": st.sampled_from([1, 2]),
        "weights_dtype": st.sampled_from(["float32", "bfloat16"]),
    }
)
POLICY = st.fixed_dictionaries(
    {
        "gather_dtype": st.sampled_from([None, "bfloat16"]),
        "reduce_dtype": st.sampled_from([None, "float32"]),
        "units": st.sampled_from(["layers", "layers+ends"]),
        "reshard_after_forward": st.sampled_from([True, False, 2]),
        "accumulate_unsynchronized": st.booleans(),
    }
)
METHODS = st.sampled_from(["full", "lora"])
few = settings(max_examples=4)


@few
@given(METHODS, WORDS, POLICY)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "fsdp2"])
def test_one_gpu_shares_nothing(strategy, method, words, policy):
    alone = estimate(MODEL, method, **words)
    shared = estimate(MODEL, method, gpus=1, strategy=strategy, **words, **policy)
    assert (shared.allocated_bytes, shared.phases) == (alone.allocated_bytes, alone.phases)
    assert shared.communication == []


@few
@given(METHODS, WORDS, POLICY)
def test_more_shards_never_need_more(method, words, policy):
    peaks = [
        estimate(MODEL, method, gpus=gpus, strategy="fsdp2", **words, **policy).allocated_bytes
        for gpus in (2, 4, 8, 32)
    ]
    assert peaks == sorted(peaks, reverse=True)


@few
@given(METHODS, WORDS, POLICY, st.sampled_from([2, 4, 8]))
def test_copies_of_a_sharding_group_hold_what_the_group_holds(method, words, policy, copies):
    group = estimate(MODEL, method, gpus=4, strategy="fsdp2", **words, **policy)
    words = {**words, **policy, "gpus": 4 * copies, "dp_replicate": copies}
    several = estimate(MODEL, method, strategy="fsdp2", **words)
    cast = several.recipe.get("reduce_dtype") not in (None, words["weights_dtype"])
    assert several.allocated_bytes == group.allocated_bytes or cast


@few
@given(WORDS, st.sampled_from([s for s in STRATEGIES if s not in ("none", "ddp")]), st.sampled_from([2, 4, 8]))
def test_shards_add_up_to_the_whole(words, strategy, gpus):
    if words["gradient_accumulation_steps"] > 1:
        words = {**words, "gradient_accumulation_steps": 1}

    def held(category, **shared):
        first = estimate(MODEL, "full", **words, **shared).plan.points[0].first.entries
        return sum(
            size.at(1, 1, 1) for (kind, label), size in first.items() if kind == category and "buffers" not in label
        )

    whole, share = held("weights"), held("weights", gpus=gpus, strategy=strategy)
    parts = gpus if strategy in ("zero3", "fsdp", "fsdp2") else 1
    assert share * parts == pytest.approx(whole, rel=1e-5)

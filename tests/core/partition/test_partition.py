"""A model cut among GPUs: what no trace has, and what is refused."""

from __future__ import annotations

import pytest

from loralens.core.answer.estimate import estimate
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.partition.context import of_whole_length
from loralens.core.partition.pipeline import layers_of, under_way
from loralens.core.question.parallelism import Parallelism
from loralens.core.tape.size import TOKENS, TOKENS_BY_SEQUENCE

MODEL = {
    "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 9,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 4096, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = {
    "model_type": "qwen3_moe", "hidden_size": 512, "intermediate_size": 1024, "moe_intermediate_size": 256, "num_hidden_layers": 3, "num_experts": 8,
    "num_experts_per_tok": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 4096,
    "tie_word_embeddings": False,
}  # fmt: skip
WORDS = {"sequence_length": 256, "weights_dtype": "bfloat16", "autocast": None}


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("word", ["tp", "cp", "pp"])
def test_one_part_is_the_whole(word, method):
    alone, one = (estimate(MODEL, method, **WORDS, **words) for words in ({}, {word: 1}))
    assert (one.phases, one.allocated_bytes) == (alone.phases, alone.allocated_bytes)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(
    "words", [{"tp": 2}, {"tp": 2, "sequence_parallel": True}, {"cp": 4}, {"cp": 4, "context": "ulysses"}]
)
def test_more_parts_need_less_and_count_the_whole_model(words, method):
    alone, part = estimate(MODEL, method, **WORDS), estimate(MODEL, method, **WORDS, **words)
    assert part.allocated_bytes < alone.allocated_bytes
    assert part.recipe.parallelism.gpus == (words.get("tp", 1) * words.get("cp", 1))
    assert (part.total_parameters, part.trainable_parameters) == (alone.total_parameters, alone.trainable_parameters)
    assert sum(part.breakdown.values()) == part.allocated_bytes


def test_gradients_of_parts_of_the_sequence_are_summed():
    part = estimate(MODEL, "full", **WORDS, cp=2, strategy="ddp")
    summed = [row for row in part.communication if row["over"] == "dp_replicate"]
    assert sum(row["bytes"] for row in summed) >= 2 * part.trainable_parameters


def test_cuts_compose_with_each_other_and_with_shards():
    words = {"gpus": 16, "strategy": "fsdp2", "tp": 2, "cp": 2, "pp": 2, "gradient_accumulation_steps": 4}
    part = estimate(MODEL, "full", **WORDS, **words)
    assert {row["over"] for row in part.communication} == {"dp_shard", "tp", "cp", "pp"}
    assert part.allocated_bytes < estimate(MODEL, "full", **WORDS).allocated_bytes


def test_the_fullest_stage_is_answered_for_and_named():
    words = {"pp": 3, "gradient_accumulation_steps": 6}
    ranks = [estimate(MODEL, "full", **WORDS, **words, pipeline_rank=rank).allocated_bytes for rank in range(3)]
    found = estimate(MODEL, "full", **WORDS, **words)
    assert found.allocated_bytes == max(ranks)
    assert found.recipe.parallelism.pipeline_rank is None
    assert any(f"is number {ranks.index(max(ranks))} (counted from 0)" in line for line in found.assumptions())


def test_stages_without_a_head_take_adapters_on_every_layer_and_packed_weights():
    stages = [
        estimate(MODEL, "qlora", **WORDS, target_modules="all-linear", pp=3, pipeline_rank=rank) for rank in range(3)
    ]
    assert len({stage.trainable_parameters for stage in stages}) == 1
    assert stages[1].allocated_bytes < min(stages[0].allocated_bytes, stages[2].allocated_bytes)


def test_stages_share_the_layers_out():
    p = Parallelism(gpus=4, pp=4, schedule="interleaved", virtual_stages=2)
    assert sorted(layer for rank in range(4) for layer in layers_of(19, p, rank)) == list(range(19))
    assert layers_of(16, p, 1) == [2, 3, 10, 11]


@pytest.mark.parametrize(
    ("schedule", "virtual", "expected"),
    [("gpipe", 1, [8] * 4), ("1f1b", 1, [4, 3, 2, 1]), ("interleaved", 2, [11, 9, 7, 5]), ("sequential", 1, [1] * 4)],
)
def test_forward_passes_under_way(schedule, virtual, expected):
    """Megatron's warm-up for four ranks and two pieces each: 11 on the first, 5 on the last."""
    p = Parallelism(gpus=4, pp=4, schedule=schedule, virtual_stages=virtual)
    assert [under_way(p, 8, rank) for rank in range(4)] == expected


def _held(method="full", **words):
    entries = estimate(EXPERTS, method, **WORDS, **words).plan.points[0].first.entries
    return {label: size.at(1, 1, 1) for (kind, label), size in entries.items() if kind == "weights"}


@pytest.mark.parametrize(("ep", "copies"), [(2, 1), (4, 1), (8, 1), (2, 2)])
def test_ranks_hold_every_expert_once_among_them(ep, copies):
    shared = {"gpus": 8, "strategy": "fsdp2", "dp_replicate": copies}
    whole, part = _held(), _held(**shared, ep=ep)
    assert part == {label: -(-size * copies // 8) if "buffers" not in label else size for label, size in whole.items()}


def test_experts_that_stay_with_their_owner_are_not_gathered():
    shared = {"gpus": 8, "strategy": "fsdp2", "gradient_checkpointing": False}
    gathered, traded = (
        {(row["over"], row["kind"]): row["bytes"] for row in found.communication if row["phase"] == "forward"}
        for found in (estimate(EXPERTS, "full", **WORDS, **shared, ep=ep) for ep in (1, 8))
    )
    experts = 3 * 8 * 512 * 256 * 3 * 2  # layers, experts, hidden, intermediate; gate, up and down in 16 bits
    assert gathered["dp_shard", "all_gather"] - traded["dp_shard", "all_gather"] == experts
    rows = 256 * 2 * 512 * 2  # tokens, chosen, hidden in 16 bits
    assert traded["ep", "all_to_all"] == 3 * (2 * rows + 8 * 8)


def test_adapters_of_attention_leave_divided_experts_frozen():
    shared = {"gpus": 4, "strategy": "fsdp2", "ep": 4, "target_modules": ("q_proj", "v_proj")}
    alone, part = (
        estimate(EXPERTS, "lora", **WORDS, **words) for words in ({"target_modules": ("q_proj", "v_proj")}, shared)
    )
    assert part.trainable_parameters == alone.trainable_parameters
    assert part.allocated_bytes < alone.allocated_bytes


@pytest.mark.parametrize("words", [{}, {"sequence_parallel": True}, {"gpus": 8, "strategy": "fsdp2"}])
def test_an_embedding_left_whole_is_whole_on_every_rank(words):
    whole, cut = (
        estimate(MODEL, "full", **WORDS, tp=4, vocabulary_parallel=kept, **words).plan.points[0].first.entries
        for kept in (False, True)
    )
    label = ("weights", "model.embed_tokens.weight")
    assert whole[label].at(1, 1, 1) == 4 * cut[label].at(1, 1, 1)


def test_stages_of_shards_hold_gradients_whole_and_send_what_they_have_of_the_sequence():
    shared = {"gpus": 16, "strategy": "fsdp2", "pp": 2, "gradient_accumulation_steps": 8, "reduce_dtype": "float32"}
    found = estimate(MODEL, "full", **WORDS, **shared, pipeline_rank=0)
    entries = max((m for m in found.plan.moments), key=lambda m: m.total.at(*found.point)).entries
    waiting = sum(size.at(*found.point) for (_, label), size in entries.items() if label.startswith("whole gradients"))
    layer = 512 * 512 * 2 + 2 * 512 * 256 + 3 * 512 * 1024 + 2 * 512  # the first stage has five of nine
    assert waiting == pytest.approx(4 * (5 * layer + 4096 * 512), rel=0.2)
    for parts in (1, 4):
        words = {"tp": parts, "sequence_parallel": True} if parts > 1 else {}
        found = estimate(MODEL, "full", **WORDS, pp=2, **words, gradient_accumulation_steps=8)
        sent = next(row for row in found.communication if row["over"] == "pp")
        assert sent["bytes"] == sent["calls"] * 256 * 512 * 2 // parts


def test_layers_spread_over_cards_hold_one_micro_batch():
    """As `device_map` does it: what the cards hold of it adds up to what one card would."""

    def kept(**words):
        found = estimate(MODEL, "full", gradient_checkpointing=False, **WORDS, **words)
        end = next(point.last for point in reversed(found.plan.points) if point.phase == "forward")
        return sum(size.at(*found.point) for (category, _), size in end.entries.items() if category == "activations")

    words = {"pp": 3, "schedule": "sequential", "gradient_accumulation_steps": 4}
    parts = [kept(pipeline_rank=rank, **words) for rank in range(3)]
    assert sum(parts) == pytest.approx(kept(gradient_accumulation_steps=4), rel=0.03)


def test_sizes_of_a_part_of_the_sequence_are_said_of_the_whole():
    assert of_whole_length(TOKENS * 8 + TOKENS_BY_SEQUENCE * 16, 4) == TOKENS * 2 + TOKENS_BY_SEQUENCE


@pytest.mark.parametrize(
    ("model", "words", "error", "field"),
    [
        (MODEL, {"tp": 3}, InvalidInput, "parallelism.tp"),
        (MODEL, {"tp": 8}, InvalidInput, "parallelism.tp"),
        (MODEL, {"cp": 3}, InvalidInput, "parallelism.cp"),
        (MODEL, {"cp": 8, "context": "ulysses"}, InvalidInput, "parallelism.context"),
        (MODEL, {"pp": 10}, InvalidInput, "parallelism.pp"),
        (MODEL, {"pp": 3, "pipeline_rank": 3}, InvalidInput, "parallelism.pipeline_rank"),
        (MODEL, {"gpus": 6, "tp": 4}, InvalidInput, "parallelism.gpus"),
        (MODEL, {"gpus": 8, "tp": 4}, InvalidInput, "parallelism.strategy"),
        ("gpt2", {"tp": 2}, UnsupportedArchitecture, "parallelism.tp"),
        (MODEL, {"gpus": 4, "strategy": "fsdp2", "ep": 4}, UnsupportedArchitecture, "parallelism.ep"),
        (EXPERTS, {"gpus": 16, "strategy": "fsdp2", "ep": 16}, InvalidInput, "parallelism.ep"),
        (EXPERTS, {"gpus": 4, "strategy": "fsdp2", "ep": 3}, InvalidInput, "parallelism.ep"),
        (EXPERTS, {"gpus": 4, "strategy": "zero3", "ep": 4}, InvalidInput, "parallelism.ep"),
        (EXPERTS, {"gpus": 4, "strategy": "fsdp2", "ep": 4, "units": "layers"}, InvalidInput, "parallelism.ep"),
        (EXPERTS, {"gpus": 4, "strategy": "fsdp2", "ep": 4, "offload": "optimizer"}, InvalidInput, "parallelism.ep"),
        (MODEL, {"gpus": 8, "strategy": "zero2", "pp": 2}, InvalidInput, "parallelism.strategy"),
        (
            MODEL,
            {"gpus": 8, "strategy": "fsdp2", "reshard_after_forward": 3},
            InvalidInput,
            "parallelism.reshard_after_forward",
        ),
        (
            EXPERTS,
            {"gpus": 4, "strategy": "fsdp2", "ep": 4, "checkpoint_reentrant": True},
            InvalidInput,
            "parallelism.ep",
        ),
        ("bert-base-uncased", {"cp": 2}, UnsupportedArchitecture, "parallelism.cp"),
        ("qwen2.5-0.5b", {"pp": 2}, UnsupportedArchitecture, "parallelism.pp"),
    ],
)
def test_what_cannot_be_cut_is_refused_by_name(model, words, error, field):
    with pytest.raises(error) as caught:
        estimate(model, "full", **WORDS, **words)
    assert caught.value.field == field
    assert caught.value.hint


@pytest.mark.parametrize("trainer", ["torchtune", "litgpt"])
def test_a_trainers_own_model_code_has_no_stages(trainer):
    with pytest.raises(UnsupportedArchitecture, match=f"for {trainer}'s own model code") as caught:
        estimate("llama-3.2-1b", "full", trainer=trainer, pp=2)
    assert caught.value.field == "parallelism.pp"


@pytest.mark.parametrize("family", ["rwkv", "mamba", "mamba2"])
def test_recurrent_layers_are_cut_into_stages(family):
    config = {
        "model_type": family,
        "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 512, "state_size": 8, "tie_word_embeddings": False,
        "attention_hidden_size": 64, "intermediate_size": 256, "num_heads": 2, "head_dim": 64, "n_groups": 1,
    }  # fmt: skip
    whole = estimate(config, "full", **WORDS)
    parts = [estimate(config, "full", **WORDS, pp=2, schedule="sequential", pipeline_rank=rank) for rank in range(2)]
    assert all(part.total_parameters == whole.total_parameters for part in parts)
    assert sum(part.breakdown["weights_bytes"] for part in parts) == whole.breakdown["weights_bytes"]
    assert all(part.allocated_bytes < whole.allocated_bytes for part in parts)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ({"ep": 4}, "try gpus=4 with strategy=fsdp2"),
        ({"gpus": 4, "ep": 4}, "try strategy=fsdp2"),
        ({"gpus": 4, "ep": 8, "strategy": "fsdp2"}, "try ep=4"),
    ],
)
def test_the_way_out_of_experts_that_do_not_divide_leads_out(words, hint):
    with pytest.raises(InvalidInput) as caught:
        estimate(EXPERTS, "full", **WORDS, **words)
    assert caught.value.hint == hint


def test_the_allocator_is_not_simulated_for_a_stage():
    with pytest.raises(InvalidInput, match="pipeline stages"):
        estimate(MODEL, "full", **WORDS, pp=2).simulated()
    assert estimate(MODEL, "full", **WORDS, tp=2).simulated().fixed_bytes > 0

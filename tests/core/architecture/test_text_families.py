"""Families of text models walked last: counted as transformers counts them, with every switch turned.

Their traced steps (tests/oracles/traced-text.jsonl) hold what PEFT counts.
"""

from __future__ import annotations

from typing import Any

import pytest
from core.architecture.transformers_models import meta_model, total

from loralens.core.answer.answers import memory_answer, plan_answer
from loralens.core.architecture.registry import Count, count_parameters
from loralens.core.errors import LoraLensError, UnsupportedArchitecture

S = {
    "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 5, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 200, "pad_token_id": 0,
}  # fmt: skip
E4 = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
DSA = {
    **S, "num_key_value_heads": 6, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "index_n_heads": 4, "index_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 48, "first_k_dense_replace": 2, "n_group": 1, "topk_group": 1,
}  # fmt: skip
ENCODER = {**S, "max_position_embeddings": 64}
BOTH = {
    "d_model": 96, "encoder_layers": 3, "decoder_layers": 2, "encoder_ffn_dim": 160, "decoder_ffn_dim": 120,
    "encoder_attention_heads": 6, "decoder_attention_heads": 4, "vocab_size": 200, "max_position_embeddings": 64,
}  # fmt: skip
V4 = {
    **S, "head_dim": 16, "q_lora_rank": 24, "o_lora_rank": 12, "o_groups": 3, "moe_intermediate_size": 48,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "index_n_heads": 4, "index_head_dim": 8, "index_topk": 4,
}  # fmt: skip
CONFIGS: dict[str, list[dict[str, Any]]] = {
    "deepseek_v4": [
        V4,
        {**V4, "compress_ratios": [0, 4, 128, 4, 0, 128], "num_hash_layers": 1, "qk_rope_head_dim": 8, "hc_mult": 2},
        {**V4, "layer_types": ["heavily_compressed_attention"] * 5, "mlp_layer_types": ["moe"] * 4 + ["hash_moe"],
         "compress_rates": {"heavily_compressed_attention": 8}, "mlp_bias": True, "tie_word_embeddings": True},
    ],
    "deepseek_v32": [DSA, {**DSA, "mlp_layer_types": ["sparse", "dense"] * 2 + ["sparse"]}],
    "glm_moe_dsa": [
        {**DSA, "index_topk_pattern": "FSFFS", "attention_bias": True},
        {**DSA, "index_topk_freq": 3, "index_skip_topk_offset": 1, "tie_word_embeddings": True},
    ],
    "exaone_moe": [
        {**S, **E4, "head_dim": 16, "num_shared_experts": 2},
        {**S, "first_k_dense_replace": 5, "tie_word_embeddings": True},
    ],
    "afmoe": [
        {**S, **E4, "head_dim": 16, "num_dense_layers": 2},
        {**S, "num_experts": 4, "attention_bias": True, "global_attn_every_n_layers": 2},
    ],
    "laguna": [
        {**S, **E4, "num_attention_heads_per_layer": [6, 4, 2, 6, 6], "head_dim": 16},
        {**S, "num_experts": 4, "gating": "per-element", "attention_bias": True,
         "layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"]},
    ],
    "electra": [ENCODER, {**ENCODER, "embedding_size": 96, "tie_word_embeddings": False}],
    "mpnet": [ENCODER, {**ENCODER, "relative_attention_num_buckets": 16, "tie_word_embeddings": False}],
    "layoutlm": [ENCODER, {**ENCODER, "type_vocab_size": 3, "max_2d_position_embeddings": 50, "tie_word_embeddings": False}],
    "bart": [BOTH],
    "mbart": [BOTH],
    "pegasus": [BOTH],
    "m2m_100": [BOTH],
    "deberta": [
        {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c"], "type_vocab_size": 2, "max_relative_positions": 9},
        {**ENCODER, "relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False},
        {**ENCODER, "type_vocab_size": 0},
    ],
    "deberta-v2": [
        {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c"], "type_vocab_size": 2},
        {**ENCODER, "relative_attention": True, "pos_att_type": "c2p|p2c", "position_biased_input": False,
         "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "type_vocab_size": 0},
        ENCODER,
    ],
    "dbrx": [
        {"d_model": 96, "n_heads": 6, "n_layers": 3, "vocab_size": 200, "max_seq_len": 64, "pad_token_id": 0,
         "attn_config": {"clip_qkv": clip, "kv_n_heads": 2, "rope_theta": 1e4},
         "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2}}
        for clip in (8, None)
    ],
}  # fmt: skip


@pytest.mark.parametrize(("family", "index"), [(name, n) for name, found in CONFIGS.items() for n in range(len(found))])
def test_a_family_has_the_parameters_of_transformers(family: str, index: int) -> None:
    config = {"model_type": family, **CONFIGS[family][index]}
    assert count_parameters(config) == Count(total(meta_model(config)), True, "")


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("laguna", {"num_attention_heads_per_layer": [6, 5, 2, 6, 6]}, "5 multiples of num_key_value_heads 2"),
        ("bart", {"tie_word_embeddings": False}, "do not share"),
        ("glm_moe_dsa", {"index_topk_pattern": "FSX"}, "index_topk_pattern|indexer_types"),
    ],
)
def test_what_does_not_fit_together_is_said(family: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(LoraLensError, match=said):
        count_parameters({"model_type": family, **CONFIGS[family][0], **change})


def test_what_deepseek_v4_does_not_do_is_refused_by_name() -> None:
    question: dict[str, Any] = {"config": {"model_type": "deepseek_v4", **V4}, "method": "lora"}
    for targets in (["o_a_proj"], "all-linear"):
        with pytest.raises(LoraLensError, match="projects every group of heads"):
            memory_answer({**question, "recipe": {"lora": {"target_modules": targets}}})
    with pytest.raises(UnsupportedArchitecture, match="pipeline stages"):
        memory_answer({**question, "recipe": {"parallelism": {"gpus": 2, "pp": 2}}})


def test_one_length_has_a_plan_of_its_own_where_windows_are_counted() -> None:
    question: dict[str, Any] = {"config": {"model_type": "deepseek_v4", **V4}, "method": "lora"}
    plan = plan_answer({**question, "recipe": {"sequence_length": 300, "lora": {"target_modules": ["kv_proj"]}}})
    assert plan["plans"][0]["valid"]["sequence_length"] == [300, 300]


def test_mpnet_has_no_checkpointing() -> None:
    config = {"model_type": "mpnet", **ENCODER}
    with pytest.raises(UnsupportedArchitecture, match="no gradient checkpointing"):
        memory_answer({"config": config, "method": "full"})
    assert memory_answer({"config": config, "method": "full", "recipe": {"gradient_checkpointing": False}})


def test_the_first_deberta_fails_in_16_bits() -> None:
    question: dict[str, Any] = {"config": {"model_type": "deberta", **CONFIGS["deberta"][1]}}
    for recipe in (
        {"autocast": "bfloat16", "weights_dtype": "float32"},
        {"autocast": None, "weights_dtype": "bfloat16"},
    ):
        with pytest.raises(UnsupportedArchitecture, match="fails in 16 bits"):
            memory_answer({**question, "method": "full", "recipe": recipe})
    recipe = {"autocast": None, "weights_dtype": "float32", "sequence_length": 32}
    assert memory_answer({**question, "methods": ["full", "lora", "qlora"], "recipe": recipe})["estimates"]


def test_dbrx_fails_under_autocast() -> None:
    question: dict[str, Any] = {"config": {"model_type": "dbrx", **CONFIGS["dbrx"][0]}, "method": "full"}
    recipe = {"weights_dtype": "bfloat16", "micro_batch_size": 1, "sequence_length": 32}
    with pytest.raises(UnsupportedArchitecture, match="autocast"):
        memory_answer({**question, "recipe": {**recipe, "autocast": "bfloat16"}})
    assert memory_answer({**question, "recipe": {**recipe, "autocast": None}})["estimates"]

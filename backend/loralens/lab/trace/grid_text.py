"""Generated cases of the text models walked after those of `grid_models`, with its recipes.

Sparse attention, more mixtures, encoders with decoders, more encoders, more hybrids (these run transformers' own PyTorch
code, as without flash-linear-attention, mamba-ssm and causal-conv1d).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from loralens.core.jsontext import JsonObject
from loralens.lab.trace.grid_models import decoder, recipes

_QUERY_VALUE: Final = ["q_proj", "v_proj"]
_SLIDING, _FULL, _LINEAR = "sliding_attention", "full_attention", "linear_attention"
_LATENT: Final[JsonObject] = {
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "kv_lora_rank": 512,
}
_SPARSE: Final[JsonObject] = {
    "n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 1, "moe_intermediate_size": 1024,
}  # fmt: skip


def _encoder_decoder(model_type: str, vocabulary: int, **more: Any) -> JsonObject:
    return {
        "model_type": model_type, "vocab_size": vocabulary, "d_model": 1024, "encoder_layers": 3, "decoder_layers": 3,
        "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "encoder_attention_heads": 16, "decoder_attention_heads": 16,
        "max_position_embeddings": 1024, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "pad_token_id": 1, **more,
    }  # fmt: skip


def _encoder(model_type: str, vocabulary: int, **more: Any) -> JsonObject:
    return {
        "model_type": model_type, "vocab_size": vocabulary, "hidden_size": 768, "intermediate_size": 3072,
        "num_attention_heads": 12, "num_hidden_layers": 3, "max_position_embeddings": 1026, "pad_token_id": 0, **more,
    }  # fmt: skip


# name -> config, names for a small LoRA, target for a large one (all-linear takes in the experts where PEFT adapts them)
CONFIGS: Final[dict[str, tuple[JsonObject, list[str], list[str] | str]]] = {
    "deepseek-v3.2": (
        decoder("deepseek_v32", 32768, 2048, 6144, 32, 32, 3, **_LATENT, **_SPARSE, q_lora_rank=768, n_group=4,
                topk_group=2, first_k_dense_replace=1, index_topk=256, index_n_heads=16, index_head_dim=128),
        ["q_b_proj", "kv_b_proj"], "all-linear",
    ),
    "deepseek-v4": (
        {"model_type": "deepseek_v4", "vocab_size": 8192, "hidden_size": 1024, "num_hidden_layers": 4, "pad_token_id": 0,
         "num_attention_heads": 8, "head_dim": 256, "q_lora_rank": 512, "o_lora_rank": 256, "o_groups": 4,
         "moe_intermediate_size": 512, "n_routed_experts": 16, "num_experts_per_tok": 4, "index_n_heads": 8,
         "index_head_dim": 64, "index_topk": 64, "partial_rotary_factor": 0.25, "hc_sinkhorn_iters": 6,
         "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 64},
         "layer_types": ["sliding_attention", "heavily_compressed_attention", "compressed_sparse_attention",
                         "heavily_compressed_attention"],
         "mlp_layer_types": ["hash_moe", "hash_moe", "moe", "moe"]},
        ["q_a_proj", "kv_proj"], ["q_a_proj", "q_b_proj", "kv_proj", "o_b_proj"],
    ),
    "glm-5": (
        decoder("glm_moe_dsa", 32768, 2048, 4096, 16, 16, 4, **_SPARSE, q_lora_rank=768, kv_lora_rank=512, v_head_dim=256,
                qk_rope_head_dim=64, qk_nope_head_dim=192, n_group=1, topk_group=1, first_k_dense_replace=1, index_topk=256,
                index_n_heads=8, index_head_dim=128, indexer_types=["full", "full", "shared", "full"]),
        ["q_b_proj", "kv_b_proj"], "all-linear",
    ),
    "afmoe": (
        decoder("afmoe", 32768, 2048, 6144, 16, 4, 4, head_dim=128, num_experts=16, num_experts_per_tok=4,
                num_shared_experts=1, moe_intermediate_size=1024, num_dense_layers=1, sliding_window=512,
                mup_enabled=True, layer_types=[_SLIDING, _SLIDING, _FULL, _SLIDING]),
        _QUERY_VALUE, "all-linear",
    ),
    "exaone-moe": (
        decoder("exaone_moe", 32768, 2048, 6144, 16, 4, 4, head_dim=128, num_experts=16, num_experts_per_tok=4,
                moe_intermediate_size=1024, first_k_dense_replace=1, sliding_window=512,
                layer_types=[_SLIDING, _SLIDING, _SLIDING, _FULL]),
        _QUERY_VALUE, "all-linear",
    ),
    "laguna": (
        decoder("laguna", 32768, 2048, 6144, 16, 4, 4, head_dim=128, num_experts=16, num_experts_per_tok=4,
                moe_intermediate_size=512, shared_expert_intermediate_size=512, sliding_window=512,
                num_attention_heads_per_layer=[16, 24, 24, 16], layer_types=[_FULL, _SLIDING, _SLIDING, _FULL]),
        _QUERY_VALUE, "all-linear",
    ),
    "bart": (_encoder_decoder("bart", 50265), _QUERY_VALUE, "all-linear"),
    "mbart": (_encoder_decoder("mbart", 250027, scale_embedding=True), _QUERY_VALUE, "all-linear"),
    "pegasus": (
        _encoder_decoder("pegasus", 96103, scale_embedding=True, activation_function="relu", pad_token_id=0),
        _QUERY_VALUE, "all-linear",
    ),
    "m2m-100": (_encoder_decoder("m2m_100", 128112), _QUERY_VALUE, "all-linear"),
    "electra": (_encoder("electra", 30522, embedding_size=768), ["query", "value"], "all-linear"),
    "electra-small": (
        {**_encoder("electra", 30522), "hidden_size": 256, "embedding_size": 128, "intermediate_size": 1024,
         "num_attention_heads": 4},
        ["query", "value"], "all-linear",
    ),
    "mpnet": (_encoder("mpnet", 30527), ["q", "v"], "all-linear"),
    "layoutlm": (_encoder("layoutlm", 30522), ["query", "value"], "all-linear"),
    "kimi-linear": (
        decoder("kimi_linear", 32768, 2304, 9216, 32, 32, 4, **_LATENT, num_experts=16, num_experts_per_tok=4,
                num_shared_experts=1, moe_intermediate_size=1024, linear_head_dim=128, linear_num_heads=32,
                layer_types=[_LINEAR, _LINEAR, _FULL, _LINEAR]),
        ["q_proj", "kv_b_proj"], "all-linear",
    ),
    "ling-2.5": (
        decoder("bailing_hybrid", 32768, 2560, 6144, 32, 32, 4, **_LATENT, head_dim=128, num_local_experts=16,
                num_experts_per_tok=4, n_shared_experts=1, moe_intermediate_size=768, n_group=4, topk_group=2,
                first_k_dense_replace=1, layer_types=[_LINEAR, _LINEAR, _FULL, _LINEAR]),
        ["q_proj", "kv_b_proj"], "all-linear",
    ),
    "olmo-hybrid": (
        decoder("olmo_hybrid", 32768, 3072, 8192, 24, 24, 4, layer_types=[_LINEAR, _LINEAR, _FULL, _LINEAR]),
        _QUERY_VALUE, "all-linear",
    ),
    "deberta-v3": (
        _encoder("deberta-v2", 128100, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=256,
                 norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False),
        ["query_proj", "value_proj"], "all-linear",
    ),
    "deberta": (
        _encoder("deberta", 50265, relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False,
                 max_position_embeddings=512),
        ["in_proj"], "all-linear",
    ),
    "lfm3": (
        decoder("lfm3", 32768, 2048, 7680, 16, 4, 5, head_dim=128, sliding_window=256,
                layer_types=["conv", "conv", _FULL, "conv", _SLIDING]),
        _QUERY_VALUE, "all-linear",
    ),
    "mamba2": (
        {"model_type": "mamba2", "vocab_size": 32768, "hidden_size": 2048, "num_hidden_layers": 3, "num_heads": 64,
         "head_dim": 64, "n_groups": 1, "pad_token_id": 0},
        ["in_proj"], ["in_proj"],
    ),
    "rwkv": (
        {"model_type": "rwkv", "vocab_size": 32768, "hidden_size": 1024, "num_hidden_layers": 3},
        ["key", "value"], "all-linear",
    ),
    "muse-glimmer": (
        decoder("muse_glimmer_text", 32768, 2048, 6144, 16, 2, 4, head_dim=128, sliding_window=512),
        _QUERY_VALUE, "all-linear",
    ),
    "dbrx": (
        {"model_type": "dbrx", "vocab_size": 32768, "d_model": 2048, "n_heads": 16, "n_layers": 2, "max_seq_len": 4096,
         "pad_token_id": 0, "attn_config": {"clip_qkv": 8, "kv_n_heads": 4, "rope_theta": 500000.0},
         "ffn_config": {"ffn_hidden_size": 3584, "moe_num_experts": 8, "moe_top_k": 2}},
        ["Wqkv"], "all-linear",
    ),
}  # fmt: skip


def cases() -> Iterator[tuple[str, JsonObject]]:
    """Name and request (config, method, recipe) of every case."""
    for name, (config, few, many) in CONFIGS.items():
        for word, (method, recipe) in recipes(config, few, many).items():
            if config["model_type"] == "mpnet" and recipe["gradient_checkpointing"]:
                continue  # transformers has none for it
            if config["model_type"] == "dbrx" and recipe.get("weights_dtype") != "float32":
                recipe = {**recipe, "autocast": None}  # its code fails under autocast
            if config["model_type"] == "deberta":  # its code fails in 16 bits
                recipe = {**recipe, "autocast": None, "weights_dtype": "float32"}
            yield f"{name}/{word}", {"config": config, "method": method, "recipe": recipe}

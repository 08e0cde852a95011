"""Generated cases of language models whose code lies beside their weights: published widths, few layers, a small vocabulary where experts fill the memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from loralens.core.jsontext import JsonObject
from loralens.lab.trace.grid_models import decoder, recipes

_CHATGLM: Final[JsonObject] = {
    "model_type": "chatglm", "hidden_size": 4096, "ffn_hidden_size": 13696, "kv_channels": 128, "num_attention_heads": 32,
    "multi_query_attention": True, "add_bias_linear": False, "add_qkv_bias": True, "hidden_dropout": 0.0,
    "layernorm_epsilon": 1e-05, "num_layers": 2, "rmsnorm": True, "post_layer_norm": True, "tie_word_embeddings": False,
}  # fmt: skip
# name -> config, names for a small LoRA, target for a large one
CONFIGS: Final[dict[str, tuple[JsonObject, list[str], list[str] | str]]] = {
    "chatglm3-6b": (
        {**_CHATGLM, "padded_vocab_size": 65024, "multi_query_group_num": 2, "seq_length": 8192},
        ["query_key_value"], "all-linear",
    ),
    "glm-4-9b-chat": (
        {**_CHATGLM, "padded_vocab_size": 151552, "multi_query_group_num": 4, "seq_length": 131072},
        ["query_key_value"], "all-linear",
    ),
    "internlm2-7b": (decoder("internlm2", 92544, 4096, 14336, 32, 8, bias=False), ["wqkv"], "all-linear"),
    "minicpm-2b": (
        decoder("minicpm", 32768, 2304, 5760, 36, 36, 3, max_position_embeddings=4096, scale_emb=12, dim_model_base=256,
                scale_depth=1.4),
        ["q_proj", "v_proj"], "all-linear",
    ),
    "minicpm4-8b": (
        decoder("minicpm", 73448, 4096, 16384, 32, 2, max_position_embeddings=32768, scale_emb=12, dim_model_base=256,
                scale_depth=1.4, tie_word_embeddings=False),
        ["q_proj", "v_proj"], "all-linear",
    ),
    "ling-lite": (
        decoder("bailing_moe", 8192, 2048, 5632, 16, 4, head_dim=128, num_experts=8, num_experts_per_tok=4, num_shared_experts=2,
                moe_intermediate_size=1408, norm_topk_prob=True, max_position_embeddings=16384),
        ["query_key_value"], ["query_key_value", "dense", "gate_proj", "up_proj", "down_proj"],
    ),
    "ling-mini-2.0": (
        decoder("bailing_moe", 8192, 2048, 5120, 16, 4, 3, head_dim=128, num_experts=16, num_experts_per_tok=4,
                num_shared_experts=1, moe_intermediate_size=512, first_k_dense_replace=1, n_group=4, topk_group=2,
                score_function="sigmoid", routed_scaling_factor=2.5, partial_rotary_factor=0.5, use_qk_norm=True),
        ["query_key_value"], "all-linear",
    ),
    "deepseek-moe-16b": (
        decoder("deepseek", 8192, 2048, 10944, 16, 16, 4, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2,
                moe_intermediate_size=1408, first_k_dense_replace=1, norm_topk_prob=False, aux_loss_alpha=0.001),
        ["q_proj", "v_proj"], "all-linear",
    ),
    "internlm2-ungrouped": (decoder("internlm2", 8192, 2048, 5632, 16, 16, 3, bias=True), ["wqkv"], "all-linear"),
}  # fmt: skip


def cases() -> Iterator[tuple[str, JsonObject]]:
    """Name and request (config, method, recipe) of every case."""
    for name, (config, few, many) in CONFIGS.items():
        for word, (method, recipe) in recipes(config, few, many).items():
            yield f"{name}/{word}", {"config": config, "method": method, "recipe": recipe}

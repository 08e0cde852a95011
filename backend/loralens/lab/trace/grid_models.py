"""Generated cases of the families walked last: full, LoRA on all linear layers, QLoRA, checkpointing on and off, several shapes.

Hybrids run transformers' own PyTorch code here, as without flash-linear-attention, mamba-ssm and causal-conv1d.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from loralens.core.jsontext import JsonObject

_QUERY_VALUE: Final = ["q_proj", "v_proj"]
_ATTENTION: Final = ["q_proj", "k_proj", "v_proj", "o_proj"]
_SLIDING, _FULL, _LINEAR = "sliding_attention", "full_attention", "linear_attention"


def decoder(model_type: str, vocabulary: int, hidden: int, intermediate: int, heads: int, keys: int, layers: int = 2,
            **more: Any) -> JsonObject:  # fmt: skip
    """A decoder's config."""
    return {
        "model_type": model_type, "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": intermediate,
        "num_attention_heads": heads, "num_key_value_heads": keys, "num_hidden_layers": layers, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 8192, **more,
    }  # fmt: skip


_GRANITE: Final[JsonObject] = {
    "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 8.0, "attention_multiplier": 0.015625,
}  # fmt: skip
# name -> config, names for a small LoRA, target for a large one (all-linear takes in the experts where PEFT adapts them)
CONFIGS: Final[dict[str, tuple[JsonObject, list[str], list[str] | str]]] = {
    "internlm3": (decoder("internlm3", 128512, 4096, 10240, 32, 2, head_dim=128), _QUERY_VALUE, "all-linear"),
    "apertus": (decoder("apertus", 131072, 4096, 21504, 32, 8), _QUERY_VALUE, "all-linear"),
    "minimax-m2": (
        decoder("minimax_m2", 32000, 3072, 1536, 48, 8, head_dim=128, num_local_experts=32, num_experts_per_tok=8,
                 rope_parameters={"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5}),
        _QUERY_VALUE, "all-linear",
    ),
    "hunyuan-3": (
        decoder("hy_v3", 32000, 4096, 13312, 64, 8, head_dim=128, num_experts=32, num_experts_per_tok=8,
                 num_shared_experts=1, moe_intermediate_size=1536, enable_moe_fp32_combine=True),
        _QUERY_VALUE, "all-linear",
    ),
    "hunyuan-3-narrow": (
        decoder("hy_v3", 32000, 2048, 4096, 16, 4, head_dim=128, num_experts=16, num_experts_per_tok=4,
                 num_shared_experts=2, moe_intermediate_size=1024, enable_moe_fp32_combine=False),
        _QUERY_VALUE, "all-linear",
    ),
    "dots1": (
        decoder("dots1", 32000, 4096, 10944, 32, 32, n_routed_experts=32, num_experts_per_tok=6, n_shared_experts=2,
                 moe_intermediate_size=1408, first_k_dense_replace=1, norm_topk_prob=True),
        _QUERY_VALUE, "all-linear",
    ),
    "lfm2": (
        decoder("lfm2", 65536, 2048, 12288, 32, 8, 4, layer_types=["conv", "conv", "full_attention", "conv"]),
        _QUERY_VALUE, "all-linear",
    ),
    "lfm2-moe": (
        decoder("lfm2_moe", 65536, 2048, 7168, 32, 8, 4, layer_types=["conv", "conv", "full_attention", "conv"],
                 num_dense_layers=2, num_experts=32, num_experts_per_tok=4, moe_intermediate_size=1792),
        _QUERY_VALUE, "all-linear",
    ),
    # as E2B: inputs for each layer, the last layers take keys and values from earlier ones
    "gemma-4-sharing": (
        decoder("gemma4_text", 32768, 1536, 6144, 8, 1, 10, head_dim=256, global_head_dim=512, sliding_window=512,
                 hidden_size_per_layer_input=256, vocab_size_per_layer_input=32768, num_kv_shared_layers=4,
                 use_double_wide_mlp=True, final_logit_softcapping=30.0,
                 layer_types=([_SLIDING] * 4 + [_FULL]) * 2),
        _QUERY_VALUE, "all-linear",
    ),
    # as 31B: one matrix makes key and value in full layers
    "gemma-4-dense": (
        decoder("gemma4_text", 32768, 2688, 8192, 16, 8, 6, head_dim=256, global_head_dim=512, sliding_window=512,
                 num_global_key_value_heads=2, attention_k_eq_v=True, hidden_size_per_layer_input=0,
                 num_kv_shared_layers=0, final_logit_softcapping=30.0, layer_types=[_SLIDING] * 5 + [_FULL]),
        _QUERY_VALUE, "all-linear",
    ),
    # as E2B: the first layers keep few of the gate's values, the last ones take keys and values from earlier ones
    "gemma-3n": (
        decoder("gemma3n_text", 32768, 2048, 8192, 8, 2, 7, head_dim=256, sliding_window=512,
                 hidden_size_per_layer_input=256, vocab_size_per_layer_input=32768, num_kv_shared_layers=2,
                 activation_sparsity_pattern=[0.95, 0.95, 0.0, 0.0, 0.0, 0.0, 0.0],
                 layer_types=[_SLIDING] * 4 + [_FULL] + [_SLIDING, _FULL]),
        _QUERY_VALUE, "all-linear",
    ),
    "gemma-4-unified": (
        decoder("gemma4_unified_text", 32768, 2560, 8192, 16, 8, 6, head_dim=256, global_head_dim=512,
                 sliding_window=512, num_global_key_value_heads=2, attention_k_eq_v=True, num_kv_shared_layers=0,
                 final_logit_softcapping=30.0, layer_types=[_SLIDING] * 5 + [_FULL]),
        _QUERY_VALUE, "all-linear",
    ),
    "gemma-4-experts": (
        decoder("gemma4_text", 32768, 2816, 2112, 16, 8, 3, head_dim=256, global_head_dim=512, sliding_window=512,
                 hidden_size_per_layer_input=0, num_kv_shared_layers=0, enable_moe_block=True, num_experts=32,
                 top_k_experts=8, moe_intermediate_size=704, layer_types=[_SLIDING, _SLIDING, _FULL]),
        _QUERY_VALUE, "all-linear",
    ),
    "granite-4-h": (
        decoder("granitemoehybrid", 49160, 2048, 8192, 32, 8, 4, **_GRANITE, num_local_experts=0,
                 shared_intermediate_size=8192, mamba_n_heads=64, mamba_d_state=128, mamba_d_head=64,
                 layer_types=["linear_attention", "linear_attention", _FULL, "linear_attention"]),
        _QUERY_VALUE, "all-linear",
    ),
    "granite-4-h-experts": (
        decoder("granitemoehybrid", 49160, 1536, 512, 12, 4, 3, **_GRANITE, num_local_experts=16, num_experts_per_tok=6,
                 shared_intermediate_size=1024, mamba_n_heads=48, mamba_d_state=128, mamba_d_head=64,
                 position_embedding_type="rope", layer_types=["linear_attention", _FULL, "linear_attention"]),
        _QUERY_VALUE, "all-linear",
    ),
    "nemotron-h": (
        decoder("nemotron_h", 32768, 2688, 10752, 32, 8, 5, head_dim=128, hybrid_override_pattern="M-M*E",
                 mamba_num_heads=64, mamba_head_dim=64, ssm_state_size=128, n_groups=8, n_routed_experts=16,
                 num_experts_per_tok=6, moe_intermediate_size=1856, moe_shared_expert_intermediate_size=3712),
        _QUERY_VALUE, ["in_proj", "q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
    ),
    "falcon-h1": (
        decoder("falcon_h1", 32784, 1024, 2048, 8, 2, 3, head_dim=64, mamba_d_ssm=1536, mamba_n_heads=24,
                 mamba_d_head=64, mamba_d_state=128, mamba_chunk_size=128),
        _QUERY_VALUE, ["in_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    ),
    "falcon-h1-normed": (
        decoder("falcon_h1", 32784, 2048, 4096, 8, 2, 2, head_dim=128, mamba_d_ssm=2048, mamba_n_heads=32,
                 mamba_d_head=64, mamba_d_state=256, mamba_n_groups=2, mamba_rms_norm=True),
        _QUERY_VALUE, ["in_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    ),
    "bamba": (
        decoder("bamba", 128256, 4096, 14336, 32, 8, 3, mamba_n_heads=128, mamba_d_head=64, mamba_d_state=128,
                 attn_layer_indices=[1]),
        _QUERY_VALUE, "all-linear",
    ),
    # shapes of Qwen3.5-9B and of its mixture, narrower, and of Qwen3-Next with fewer experts
    "qwen3.5": (
        decoder("qwen3_5_text", 32768, 2560, 9216, 16, 4, 4, head_dim=256, linear_num_key_heads=16,
                 linear_num_value_heads=32, layer_types=[_LINEAR, _LINEAR, _LINEAR, _FULL]),
        _QUERY_VALUE, "all-linear",
    ),
    "qwen3.5-experts": (
        decoder("qwen3_5_moe_text", 32768, 2048, 512, 16, 2, 4, head_dim=256, num_experts=32, num_experts_per_tok=8,
                 moe_intermediate_size=512, shared_expert_intermediate_size=512, linear_num_key_heads=16,
                 linear_num_value_heads=32, layer_types=[_LINEAR, _LINEAR, _LINEAR, _FULL]),
        _QUERY_VALUE, "all-linear",
    ),
    "qwen3-next": (
        decoder("qwen3_next", 32768, 2048, 5632, 16, 2, 4, head_dim=256, num_experts=32, num_experts_per_tok=10,
                 moe_intermediate_size=512, shared_expert_intermediate_size=512, linear_num_key_heads=16,
                 linear_num_value_heads=32, layer_types=[_LINEAR, _LINEAR, _FULL, _LINEAR]),
        _QUERY_VALUE, "all-linear",
    ),
    # the scan runs position by position: short sequences
    "mamba": (
        {"model_type": "mamba", "vocab_size": 50280, "hidden_size": 1024, "num_hidden_layers": 2, "pad_token_id": 0},
        ["in_proj"], ["in_proj", "x_proj"],
    ),
    "falcon-mamba": (
        {"model_type": "falcon_mamba", "vocab_size": 32768, "hidden_size": 1024, "num_hidden_layers": 2, "pad_token_id": 0},
        ["in_proj"], ["in_proj", "x_proj"],
    ),
    "jamba": (
        decoder("jamba", 32768, 1024, 3584, 16, 8, 4, num_experts=4, num_experts_per_tok=2, attn_layer_period=4,
                 attn_layer_offset=2),
        _QUERY_VALUE, "all-linear",
    ),
    "minimax": (
        decoder("minimax", 32768, 2048, 3072, 32, 8, 4, head_dim=128, num_local_experts=8, num_experts_per_tok=2,
                 layer_types=[_LINEAR, _LINEAR, _FULL, _LINEAR]),
        _QUERY_VALUE, "all-linear",
    ),
    "mimo-v2-flash": (
        decoder("mimo_v2_flash", 32768, 2048, 6144, 32, 4, 3, n_routed_experts=16, num_experts_per_tok=4,
                 moe_intermediate_size=1024, layer_types=[_FULL, _SLIDING, _FULL]),
        _QUERY_VALUE, "all-linear",
    ),
    "phi-3.5-moe": (
        decoder("phimoe", 32064, 2048, 3200, 16, 8, num_local_experts=16, attention_bias=True, lm_head_bias=True),
        _QUERY_VALUE, _ATTENTION,
    ),
    "bitnet": (decoder("bitnet", 32768, 2560, 6912, 20, 5, hidden_act="relu2"), _QUERY_VALUE, "all-linear"),
    "minicpm3": (
        decoder("minicpm3", 73448, 2560, 6400, 40, 40, q_lora_rank=768, kv_lora_rank=256, qk_nope_head_dim=64,
                 qk_rope_head_dim=32, v_head_dim=64),
        ["q_b_proj", "kv_b_proj"], "all-linear",
    ),
    "mpt": (
        {"model_type": "mpt", "vocab_size": 50432, "d_model": 4096, "n_heads": 32, "n_layers": 2, "max_seq_len": 2048,
         "attn_config": {"alibi": True, "attn_pdrop": 0}},
        ["Wqkv"], "all-linear",
    ),
    "codegen": (
        {"model_type": "codegen", "vocab_size": 51200, "n_embd": 2560, "n_head": 32, "n_layer": 2, "rotary_dim": 64},
        ["qkv_proj"], "all-linear",
    ),
    "gpt-neo": (
        {"model_type": "gpt_neo", "vocab_size": 50257, "hidden_size": 2048, "num_heads": 16, "num_layers": 2,
         "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 2048},
        _QUERY_VALUE, "all-linear",
    ),
    "mistral-4": (
        decoder("mistral4", 32768, 4096, 12288, 32, 32, n_routed_experts=16, num_experts_per_tok=4, n_shared_experts=1,
                 moe_intermediate_size=2048, first_k_dense_replace=0, q_lora_rank=1024, kv_lora_rank=256,
                 qk_rope_head_dim=64, qk_nope_head_dim=64, v_head_dim=128),
        ["q_b_proj", "kv_b_proj"], "all-linear",
    ),
    "hunyuan-moe": (
        decoder("hunyuan_v1_moe", 32768, 4096, 3072, 32, 8, head_dim=128, num_experts=16, moe_topk=8),
        _QUERY_VALUE, "all-linear",
    ),
    "mt5": (
        {"model_type": "mt5", "vocab_size": 250112, "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 3,
         "num_decoder_layers": 3, "num_heads": 12, "pad_token_id": 0},
        ["q", "v"], ["q", "k", "v", "o", "wi_0", "wi_1", "wo"],
    ),
}  # fmt: skip


_BY_POSITION: Final = ("mamba", "falcon_mamba", "jamba", "rwkv", "recurrent_gemma")


def _shape(batch: int, length: int, *, checkpointing: bool = False) -> JsonObject:
    return {"micro_batch_size": batch, "sequence_length": length, "gradient_checkpointing": checkpointing}


def recipes(config: JsonObject, few: list[str], many: list[str] | str) -> dict[str, tuple[str, JsonObject]]:
    """Method and recipe of each case, by name."""
    experts = any("expert" in name and config[name] for name in config)
    small = {"rank": 8, "dropout": 0.1, "target_modules": few}
    # PEFT has no dropout on experts, and what k-bit preparation makes of them cannot run
    large = {"rank": 16, "alpha": 32, "dropout": 0.0 if experts else 0.05, "target_modules": many}
    nf4 = {"type": "nf4", "double_quant": True, "prepare_kbit": not experts}
    found = {
        "full": ("full", {**_shape(1, 512), "autocast": None}),
        "full-fp32-autocast": ("full", {**_shape(1, 700), "weights_dtype": "float32"}),
        "full-checkpointing": ("full", {**_shape(2, 1024, checkpointing=True), "autocast": None}),
        "lora-few-no-autocast": ("lora", {**_shape(2, 300), "autocast": None, "lora": small}),
        "lora-many": ("lora", {**_shape(2, 512), "lora": large}),
        "lora-many-checkpointing": ("lora", {**_shape(4, 1024, checkpointing=True), "lora": large}),
        "lora-padded": ("lora", {**_shape(3, 256), "padded": True, "lora": large}),
        "qlora": ("qlora", {**_shape(1, 512), "lora": large, "quantization": nf4}),
        "qlora-checkpointing": ("qlora", {**_shape(2, 1024, checkpointing=True), "lora": large, "quantization": nf4}),
    }  # fmt: skip
    if config["model_type"] in _BY_POSITION:
        return {
            name: (method, {**recipe, "sequence_length": recipe["sequence_length"] // 8})
            for name, (method, recipe) in found.items()
        }
    return found


def cases() -> Iterator[tuple[str, JsonObject]]:
    """Name and request (config, method, recipe) of every case."""
    for name, (config, few, many) in CONFIGS.items():
        for word, (method, recipe) in recipes(config, few, many).items():
            yield f"{name}/{word}", {"config": config, "method": method, "recipe": recipe}

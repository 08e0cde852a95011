"""More generated cases: the families that the first grid leaves out, at the width of transformers' own default, few layers.

Source of the shapes: transformers 5.23, the defaults of each configuration class, except where a line says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from loralens.core.jsontext import JsonObject

_ATTENTION: Final = ["q_proj", "k_proj", "v_proj", "o_proj"]


def _decoder(model_type: str, vocabulary: int, hidden: int, intermediate: int, heads: int, keys: int, layers: int = 2,
             **more: Any) -> JsonObject:  # fmt: skip
    return {
        "model_type": model_type, "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": intermediate,
        "num_attention_heads": heads, "num_key_value_heads": keys, "num_hidden_layers": layers, "pad_token_id": 0,
        "max_position_embeddings": 8192, **more,
    }  # fmt: skip


def _encoder(model_type: str, vocabulary: int, **more: Any) -> JsonObject:
    return {
        "model_type": model_type, "vocab_size": vocabulary, "hidden_size": 768, "intermediate_size": 3072,
        "num_attention_heads": 12, "num_hidden_layers": 3, "max_position_embeddings": 1026, "pad_token_id": 0, **more,
    }  # fmt: skip


_GRANITE: Final[JsonObject] = {
    "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 6.0, "attention_multiplier": 0.015625,
}  # fmt: skip
# name -> config, names for a small LoRA, names for a large one
CONFIGS: Final[dict[str, tuple[JsonObject, list[str], list[str] | str]]] = {
    "olmo": (_decoder("olmo", 50304, 4096, 11008, 32, 32), ["q_proj", "v_proj"], "all-linear"),
    "olmo-clipped": (_decoder("olmo", 50304, 4096, 11008, 32, 32, clip_qkv=8.0), ["q_proj", "v_proj"], "all-linear"),
    "olmo3": (
        _decoder("olmo3", 50304, 4096, 11008, 32, 32, 4, sliding_window=512), ["q_proj", "v_proj"], "all-linear",
    ),
    "olmoe": (_decoder("olmoe", 50304, 2048, 2048, 16, 16), ["q_proj", "v_proj"], _ATTENTION),
    "qwen2-moe": (
        _decoder("qwen2_moe", 151936, 2048, 5632, 16, 16, moe_intermediate_size=1408, num_experts=60,
                 shared_expert_intermediate_size=5632, num_experts_per_tok=4),
        ["q_proj", "v_proj"], _ATTENTION,
    ),
    "granite-moe": (
        _decoder("granitemoe", 32000, 4096, 1024, 32, 8, **_GRANITE, num_local_experts=8), ["q_proj", "v_proj"], _ATTENTION,
    ),
    "granite-moe-shared": (
        _decoder("granitemoeshared", 32000, 4096, 1024, 32, 8, **_GRANITE, shared_intermediate_size=1024),
        ["q_proj", "v_proj"], _ATTENTION,
    ),
    "seed-oss": (_decoder("seed_oss", 155136, 4096, 27648, 80, 8, head_dim=128), ["q_proj", "v_proj"], "all-linear"),
    "arcee": (_decoder("arcee", 32000, 2560, 18432, 32, 8), ["q_proj", "v_proj"], "all-linear"),
    "nemotron": (_decoder("nemotron", 256000, 6144, 24576, 48, 8), ["q_proj", "v_proj"], "all-linear"),
    "helium": (_decoder("helium", 48000, 2560, 7040, 20, 20, head_dim=128), ["q_proj", "v_proj"], "all-linear"),
    "ernie-4.5": (_decoder("ernie4_5", 103424, 1024, 3072, 16, 2, head_dim=128), ["q_proj", "v_proj"], "all-linear"),
    "ernie-4.5-moe": (
        _decoder("ernie4_5_moe", 103424, 2560, 12288, 20, 4, 3, moe_intermediate_size=1536, moe_num_experts=64, moe_k=6,
                 moe_num_shared_experts=2),
        ["q_proj", "v_proj"], _ATTENTION,
    ),
    "glm-4.7-flash": (
        _decoder("glm4_moe_lite", 154880, 2048, 10240, 20, 20, 3, moe_intermediate_size=1536, n_routed_experts=64,
                 num_experts_per_tok=4, q_lora_rank=768, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=192,
                 v_head_dim=256),
        ["q_b_proj", "kv_b_proj"], ["q_a_proj", "q_b_proj", "kv_b_proj", "o_proj"],
    ),
    "hunyuan": (_decoder("hunyuan_v1_dense", 120818, 2048, 6144, 16, 4, head_dim=128), ["q_proj", "v_proj"], "all-linear"),
    "exaone-4": (
        _decoder("exaone4", 102400, 4096, 16384, 32, 8, 4, sliding_window=512, sliding_window_pattern=4),
        ["q_proj", "v_proj"], "all-linear",
    ),
    "ministral": (
        _decoder("ministral", 32000, 4096, 14336, 32, 8, head_dim=128, sliding_window=512), ["q_proj", "v_proj"], "all-linear",
    ),
    "ministral-3": (_decoder("ministral3", 131072, 4096, 14336, 32, 8, head_dim=128), ["q_proj", "v_proj"], "all-linear"),
    "cwm": (
        _decoder("cwm", 128256, 6144, 21504, 48, 8, 4, head_dim=128, sliding_window=512), ["q_proj", "v_proj"], "all-linear",
    ),
    "roberta": (_encoder("roberta", 50265, type_vocab_size=1), ["query", "value"], "all-linear"),
    "xlm-roberta": (_encoder("xlm-roberta", 250002, type_vocab_size=1), ["query", "value"], "all-linear"),
    "camembert": (_encoder("camembert", 32005, type_vocab_size=1), ["query", "value"], "all-linear"),
    "distilbert": (
        {"model_type": "distilbert", "vocab_size": 30522, "dim": 768, "hidden_dim": 3072, "n_layers": 3, "n_heads": 12,
         "max_position_embeddings": 1024, "pad_token_id": 0},
        ["q_lin", "v_lin"], "all-linear",
    ),
    "modernbert": (
        {**_encoder("modernbert", 50368), "intermediate_size": 1152, "num_hidden_layers": 4, "local_attention": 128},
        ["Wqkv"], "all-linear",
    ),
}  # fmt: skip


def _shape(batch: int, length: int) -> JsonObject:
    return {"micro_batch_size": batch, "sequence_length": length}


def _recipes(few: list[str], many: list[str] | str) -> dict[str, tuple[str, JsonObject]]:
    small = {"rank": 8, "dropout": 0.1, "target_modules": few}
    large = {"rank": 16, "alpha": 32, "dropout": 0.05, "target_modules": many}
    nf4 = {"type": "nf4", "double_quant": True, "prepare_kbit": True}
    return {
        "full-bf16": ("full", {**_shape(2, 1024), "autocast": None}),
        "full-fp32-autocast": ("full", {**_shape(1, 512), "weights_dtype": "float32"}),
        "full-checkpointing-8bit": ("full", {**_shape(4, 1024), "autocast": None, "optimizer": "adamw_8bit", "gradient_checkpointing": True}),
        "lora-few-no-autocast": ("lora", {**_shape(1, 1024), "autocast": None, "lora": small}),
        "lora-many-checkpointing": ("lora", {**_shape(4, 1024), "gradient_checkpointing": True, "lora": large}),
        "lora-padded": ("lora", {**_shape(3, 512), "padded": True, "lora": large}),
        "lora-eager": ("lora", {**_shape(1, 1024), "attention": "eager", "lora": large}),
        "dora": ("dora", {**_shape(1, 512), "lora": small}),
        "qlora-checkpointing": ("qlora", {**_shape(2, 1024), "gradient_checkpointing": True, "lora": large, "quantization": nf4}),
    }  # fmt: skip


def cases() -> Iterator[tuple[str, JsonObject]]:
    """Name and request (config, method, recipe) of every case."""
    for name, (config, few, many) in CONFIGS.items():
        for word, (method, recipe) in _recipes(few, many).items():
            yield (
                f"{name}/{word}",
                {"config": config, "method": method, "recipe": {"gradient_checkpointing": False, **recipe}},
            )

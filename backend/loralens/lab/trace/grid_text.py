"""Generated cases of the text models walked after those of `grid_models`, with its recipes: sparse attention, more mixtures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from loralens.lab.trace.grid_models import decoder, recipes

_QUERY_VALUE: Final = ["q_proj", "v_proj"]
_SLIDING, _FULL = "sliding_attention", "full_attention"
_LATENT: Final[dict[str, Any]] = {
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "kv_lora_rank": 512,
}
_SPARSE: Final[dict[str, Any]] = {
    "n_routed_experts": 16, "num_experts_per_tok": 4, "n_shared_experts": 1, "moe_intermediate_size": 1024,
}  # fmt: skip


# name -> config, names for a small LoRA, target for a large one (all-linear takes in the experts where PEFT adapts them)
CONFIGS: Final[dict[str, tuple[dict[str, Any], list[str], list[str] | str]]] = {
    "deepseek-v3.2": (
        decoder("deepseek_v32", 32768, 2048, 6144, 32, 32, 3, **_LATENT, **_SPARSE, q_lora_rank=768, n_group=4,
                topk_group=2, first_k_dense_replace=1, index_topk=256, index_n_heads=16, index_head_dim=128),
        ["q_b_proj", "kv_b_proj"], "all-linear",
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
}  # fmt: skip


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and request (config, method, recipe) of every case."""
    for name, (config, few, many) in CONFIGS.items():
        for word, (method, recipe) in recipes(config, few, many).items():
            yield f"{name}/{word}", {"config": config, "method": method, "recipe": recipe}

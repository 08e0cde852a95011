"""Small multimodal configs, and what several of them share; `test_multimodal` compares their counts with transformers'."""

from __future__ import annotations

from typing import Any

TEXT = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "pad_token_id": 0,
}
VIT = {"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 14}
ERNIE_ROPE = {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [3, 3, 2]}
# with mixtures of experts of their own
SPARSE: dict[str, dict[str, Any]] = {
    "ernie4_5_vl_moe": {
        "text_config": {**TEXT, "model_type": "ernie4_5_vl_moe_text", "moe_num_experts": 4, "moe_k": 2,
                        "moe_intermediate_size": [24, 16], "rope_parameters": ERNIE_ROPE},
        "vision_config": {"depth": 3, "hidden_size": 48, "num_heads": 4, "intermediate_size": 100, "patch_size": 14},
    },
    "ernie4_5_vl_moe, untied, with biases and without a shared expert": {
        "text_config": {**TEXT, "model_type": "ernie4_5_vl_moe_text", "moe_num_experts": 4, "moe_k": 2, "use_bias": True,
                        "moe_num_shared_experts": 0, "mlp_layer_types": ["sparse", "dense", "sparse"],
                        "rope_parameters": ERNIE_ROPE},
        "vision_config": {"depth": 2, "hidden_size": 48, "num_heads": 4, "intermediate_size": 100, "spatial_merge_size": 3},
        "tie_word_embeddings": False,
    },
    "minimax_m3_vl": {
        "text_config": {**TEXT, "model_type": "minimax_m3_vl_text", "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32,
                        "dense_intermediate_size": 64, "shared_intermediate_size": 48, "index_n_heads": 2, "index_head_dim": 16,
                        "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
                        "mlp_layer_types": ["dense", "sparse", "sparse"]},
        "vision_config": VIT, "projector_hidden_size": 40,
    },
    "minimax_m3_vl, as its first files say it, tied from inside": {
        "text_config": {**TEXT, "model_type": "minimax_m3_vl_text", "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32,
                        "sparse_attention_config": {"sparse_attention_freq": [0, 0, 1], "sparse_num_index_heads": 2,
                                                    "sparse_index_dim": 24},
                        "moe_layer_freq": [0, 1, 1], "hidden_act": "swigluoai", "tie_word_embeddings": True},
        "vision_config": {**VIT, "spatial_merge_size": 3}, "projector_hidden_size": 40, "tie_word_embeddings": False,
    },
    "step3p7": {
        "text_config": {**TEXT, "model_type": "step3p5", "n_routed_experts": 4, "num_experts_per_tok": 2, "head_dim": 32,
                        "moe_intermediate_size": 24, "share_expert_dim": 40, "num_sliding_attention_heads": 4,
                        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"], "sliding_window": 32,
                        "mlp_layer_types": ["dense", "sparse", "sparse"]},
        "vision_config": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56},
    },
    "step3p7, as its first files say it": {
        "text_config": {**TEXT, "model_type": "step3p7_text", "num_hidden_layers": 4, "moe_num_experts": 4, "moe_top_k": 2,
                        "head_dim": 32, "num_key_value_heads": 2, "moe_layers_enum": "2,3", "share_expert_dims": 40,
                        "layer_types": ["full_attention", "sliding_attention"] * 2, "sliding_window": 32, "attention_bias": True,
                        "attention_other_setting": {"num_attention_heads": 4}, "partial_rotary_factors": [0.5, 1.0] * 2,
                        "rope_theta": [5000000.0, 10000.0] * 2, "tie_word_embeddings": True},
        "vision_config": {"width": 48, "layers": 2, "heads": 4, "mlp_ratio": 2.5, "model_type": "perception_encoder",
                          "image_size": 56},
        "projector_bias": True,
    },
}  # fmt: skip

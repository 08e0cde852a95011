"""Cases of multimodal models, continued: see `grid_media`, which traces these behind its own."""

from __future__ import annotations

from typing import Final

from loralens.core.jsontext import JsonObject

# name; layers of the language model and of the tower; a picture; a longest sequence
FAMILIES: Final[tuple[tuple[str, int, int, tuple[int, int], int], ...]] = (
    ("qwen3.5-moe-narrow", 4, 4, (320, 512), 512),
    ("glm-ocr", 4, 5, (364, 500), 512),
    ("aya-vision-8b", 4, 5, (364, 728), 1024),
    ("llava-onevision-7b", 3, 5, (900, 1300), 8192),
    ("llava-next-video-7b", 2, 5, (500, 700), 3072),
    ("muse-glimmer-narrow", 5, 6, (364, 980), 1024),
    ("paddleocr-vl", 4, 5, (364, 500), 512),
    ("kimi-k2.5-narrow", 3, 5, (360, 500), 512),
    ("video-llava-7b", 3, 5, (224, 224), 2048),
    ("lfm2-vl-1.6b", 4, 5, (400, 500), 512),
    ("lfm2.5-vl-1.6b", 3, 3, (600, 1500), 2048),
    ("minicpm-v-4.6", 4, 5, (500, 700), 1024),
    ("idefics2-8b", 2, 5, (500, 700), 512),
    ("gemma-3n-whole", 7, 2, (500, 700), 512),
    ("got-ocr-2", 4, 4, (700, 500), 512),
    ("ernie-4.5-vl-narrow", 3, 5, (500, 700), 1536),
    ("deepseek-ocr-2-narrow", 3, 3, (1000, 700), 1536),
    ("minimax-m3-narrow", 4, 5, (500, 700), 1100),
    ("step-3.7-narrow", 4, 3, (1000, 700), 768),
    ("deepseek-vl-1.3b", 4, 5, (500, 700), 1024),
    ("phi-4-multimodal", 3, 5, (500, 700), 1536),
    ("ovis2-1b", 4, 5, (500, 700), 2048),
)
# where all-linear is not what is adapted
NAMED: Final[dict[str, list[str]]] = {}
# what is left unpacked where transformers casts pictures to the dtype of a packed layer and stops with an error
_SKIP: Final = ["lm_head", "model.vision_tower"]
SKIPS: Final = dict.fromkeys(("muse-glimmer-narrow", "lfm2-vl-1.6b", "lfm2.5-vl-1.6b", "ernie-4.5-vl-narrow"), _SKIP)
# what a sample holds beside its pictures
BESIDE: Final = {"video-llava-7b": {"video_frames": 4}}
# published widths, unless a line above says otherwise
CONFIGS: Final[dict[str, JsonObject]] = {
    # narrower than 35B-A3B, with fewer experts
    "qwen3.5-moe-narrow": {
        "model_type": "qwen3_5_moe", "tie_word_embeddings": False,
        "text_config": {"model_type": "qwen3_5_moe_text", "hidden_size": 2048, "num_hidden_layers": 40,
                        "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 65536, "head_dim": 256,
                        "linear_num_value_heads": 32, "num_experts": 32, "num_experts_per_tok": 8,
                        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512},
        "vision_config": {"model_type": "qwen3_5_moe", "depth": 27, "out_hidden_size": 2048},
    },
    "glm-ocr": {
        "model_type": "glm_ocr", "tie_word_embeddings": False,
        "text_config": {"model_type": "glm_ocr_text", "hidden_size": 1536, "intermediate_size": 4608, "num_hidden_layers": 16,
                        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 59392,
                        "pad_token_id": 59246,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [16, 24, 24],
                                            "partial_rotary_factor": 1.0}},
        "vision_config": {"model_type": "glm_ocr_vision", "depth": 24, "hidden_size": 1024, "num_heads": 16,
                          "out_hidden_size": 1536, "intermediate_size": 4096, "image_size": 336, "patch_size": 14},
    },
    "aya-vision-8b": {
        "model_type": "aya_vision", "downsample_factor": 2, "vision_feature_layer": -1, "tie_word_embeddings": True,
        "vision_feature_select_strategy": "full", "alignment_intermediate_size": 28672, "image_token_index": 255036,
        "text_config": {"model_type": "cohere2", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 256000, "sliding_window": 4096,
                        "logit_scale": 0.25, "pad_token_id": 0, "tie_word_embeddings": True},
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 364, "patch_size": 14,
                          "vision_use_head": False},
    },
    "llava-onevision-7b": {
        "model_type": "llava_onevision", "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9", "tie_word_embeddings": False,
        "text_config": {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152128,
                        "tie_word_embeddings": False},
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 26, "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
                          "vision_use_head": False},
    },
    "llava-next-video-7b": {
        "model_type": "llava_next_video", "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
                        "tie_word_embeddings": False},
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
                          "image_size": 336, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
                          "projection_dim": 768, "vocab_size": 32000},
    },
    # as E2B, with few layers of its tower for sound, which does not run
    "gemma-3n-whole": {
        "model_type": "gemma3n", "image_token_id": 24,
        "text_config": {"model_type": "gemma3n_text", "vocab_size": 32768, "hidden_size": 2048, "intermediate_size": 8192,
                        "num_hidden_layers": 7, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256,
                        "sliding_window": 512, "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 32768,
                        "num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0, 0.0, 0.0],
                        "layer_types": [*["sliding_attention"] * 4, "full_attention", "sliding_attention", "full_attention"],
                        "pad_token_id": 0},
        "vision_config": {"model_type": "gemma3n_vision", "architecture": "mobilenetv5_300m_enc"},
        "audio_config": {"model_type": "gemma3n_audio", "hidden_size": 1536, "conf_num_hidden_layers": 2},
    },
    # as 28B-A3B's defaults, with fewer experts and a smaller vocabulary
    "ernie-4.5-vl-narrow": {
        "model_type": "ernie4_5_vl_moe", "image_token_id": 24, "video_token_id": 25, "tie_word_embeddings": True,
        "text_config": {"model_type": "ernie4_5_vl_moe_text", "hidden_size": 2560, "intermediate_size": 12288,
                        "num_hidden_layers": 28, "num_attention_heads": 20, "num_key_value_heads": 4, "vocab_size": 4096,
                        "moe_num_experts": 8, "moe_k": 6, "moe_intermediate_size": [1536, 512], "moe_num_shared_experts": 2},
        "vision_config": {"model_type": "ernie4_5_vl_moe_vision", "hidden_size": 1280, "intermediate_size": 5120,
                          "depth": 32, "num_heads": 16},
    },
    # narrower than Flash, with fewer heads, experts and tokens
    "step-3.7-narrow": {
        "model_type": "step3p7", "image_token_id": 24,
        "text_config": {"model_type": "step3p5", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 45,
                        "num_attention_heads": 16, "num_sliding_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
                        "vocab_size": 8192, "pad_token_id": 1, "n_routed_experts": 8, "num_experts_per_tok": 4,
                        "moe_intermediate_size": 640, "share_expert_dim": 640, "sliding_window": 512,
                        "moe_router_scaling_factor": 3.0, "tie_word_embeddings": False,
                        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
                        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
                        "rope_parameters": {
                            "full_attention": {"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.5},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
        "vision_config": {"model_type": "step3p5_vision", "hidden_size": 1536, "num_hidden_layers": 47,
                          "num_attention_heads": 16, "image_size": 728, "patch_size": 14},
    },
    # narrower than M3, with fewer heads, experts and tokens
    "minimax-m3-narrow": {
        "model_type": "minimax_m3_vl", "image_token_index": 24, "video_token_index": 25, "projector_hidden_size": 2048,
        "tie_word_embeddings": False,
        "text_config": {"model_type": "minimax_m3_vl_text", "hidden_size": 2048, "intermediate_size": 768,
                        "dense_intermediate_size": 3072, "shared_intermediate_size": 768, "num_hidden_layers": 60,
                        "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 4096,
                        "num_local_experts": 16, "num_experts_per_tok": 4, "bos_token_id": 1, "eos_token_id": 2,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.5},
                        "index_block_size": 64, "index_topk_blocks": 6,
                        "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse", "minimax_m3_sparse"],
                        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
        "vision_config": {"model_type": "minimax_m3_vl_vision", "hidden_size": 1280, "intermediate_size": 5120,
                          "num_hidden_layers": 32, "num_attention_heads": 16, "image_size": 2016},
    },
    # narrower than K2.5, with fewer experts
    "kimi-k2.5-narrow": {
        "model_type": "kimi_k25", "tie_word_embeddings": False, "image_token_id": 24, "video_token_id": 25,
        "text_config": {"model_type": "deepseek_v3", "hidden_size": 2048, "intermediate_size": 6144,
                        "moe_intermediate_size": 512, "num_hidden_layers": 61, "first_k_dense_replace": 1,
                        "num_attention_heads": 16, "num_key_value_heads": 16, "n_routed_experts": 16,
                        "num_experts_per_tok": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
                        "q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
                        "v_head_dim": 128, "vocab_size": 32768, "tie_word_embeddings": False},
        "vision_config": {"model_type": "kimi_k25_vision", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 14},
    },
    # narrower than 30B
    "muse-glimmer-narrow": {
        "model_type": "muse_glimmer", "out_hidden_size": 6144, "projector_hidden_size": 4096, "tie_word_embeddings": False,
        "text_config": {"model_type": "muse_glimmer_text", "hidden_size": 3072, "intermediate_size": 9216,
                        "num_hidden_layers": 52, "num_attention_heads": 24, "num_key_value_heads": 2, "head_dim": 128,
                        "vocab_size": 65536, "sliding_window": 1024, "eos_token_id": 1, "bos_token_id": 0},
        "vision_config": {"model_type": "muse_glimmer_vision", "hidden_size": 1536, "intermediate_size": 8960,
                          "num_hidden_layers": 50, "num_attention_heads": 16},
    },
    # windows merge behind the second of few layers
    "minicpm-v-4.6": {
        "model_type": "minicpmv4_6", "insert_layer_id": 1, "image_token_id": 24, "video_token_id": 25,
        "tie_word_embeddings": True,
        "text_config": {"model_type": "qwen3_5_text", "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 24,
                        "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 248320, "head_dim": 256,
                        "linear_num_value_heads": 16, "tie_word_embeddings": True},
        "vision_config": {"model_type": "minicpmv4_6_vision", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 980, "patch_size": 14},
    },
    "idefics2-8b": {
        "model_type": "idefics2", "image_token_id": 32001, "tie_word_embeddings": False,
        "perceiver_config": {"hidden_size": 4096, "resampler_n_latents": 64, "resampler_depth": 3, "resampler_n_heads": 16,
                             "resampler_head_dim": 96, "num_key_value_heads": 4},
        "text_config": {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32003, "pad_token_id": 0,
                        "tie_word_embeddings": False},
        "vision_config": {"model_type": "idefics2", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
                          "num_attention_heads": 16, "image_size": 980, "patch_size": 14},
    },
    # two of four layers of the tower see the whole picture
    "got-ocr-2": {
        "model_type": "got_ocr2", "image_token_index": 151859, "tie_word_embeddings": True,
        "text_config": {"model_type": "qwen2", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24,
                        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151860,
                        "tie_word_embeddings": True},
        "vision_config": {"model_type": "got_ocr2_vision", "hidden_size": 768, "mlp_dim": 3072, "num_hidden_layers": 12,
                          "num_attention_heads": 12, "image_size": 1024, "patch_size": 16, "window_size": 14,
                          "global_attn_indexes": [1, 2]},
    },
    # with two layers of its tower for sound, which does not run
    "phi-4-multimodal": {
        "model_type": "phi4_multimodal", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 24, "num_key_value_heads": 8, "vocab_size": 200064, "partial_rotary_factor": 0.75,
        "pad_token_id": 199999, "tie_word_embeddings": True,
        "vision_config": {"model_type": "phi4_multimodal_vision", "num_hidden_layers": 27},
        "audio_config": {"model_type": "phi4_multimodal_audio", "num_blocks": 2},
    },
    "deepseek-vl-1.3b": {
        "model_type": "deepseek_vl", "image_token_id": 100015,
        "text_config": {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
                        "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 128, "vocab_size": 102400},
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
                          "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 384, "patch_size": 16,
                          "hidden_act": "gelu", "vision_use_head": False},
    },
    # fewer experts, and few layers behind SAM's, of which one sees the whole picture
    "deepseek-ocr-2-narrow": {
        "model_type": "deepseek_ocr2", "image_token_id": 24, "tie_word_embeddings": False,
        "text_config": {"model_type": "deepseek_ocr2_text", "hidden_size": 1280, "intermediate_size": 6848,
                        "moe_intermediate_size": 896, "num_hidden_layers": 12, "num_attention_heads": 10,
                        "num_key_value_heads": 10, "n_routed_experts": 16, "num_experts_per_tok": 6,
                        "n_shared_experts": 2, "mlp_layer_types": ["dense", "sparse", "sparse"], "vocab_size": 32768,
                        "tie_word_embeddings": False},
        "vision_config": {"model_type": "deepseek_ocr2_vision",
                          "sam_config": {"num_hidden_layers": 3, "global_attn_indexes": [1]},
                          "encoder_config": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 3,
                                             "num_attention_heads": 14, "num_key_value_heads": 2}},
    },
    "paddleocr-vl": {
        "model_type": "paddleocr_vl", "tie_word_embeddings": False,
        "text_config": {"model_type": "paddleocr_vl_text", "hidden_size": 1024, "intermediate_size": 3072,
                        "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 128,
                        "vocab_size": 103424, "tie_word_embeddings": False},
        "vision_config": {"model_type": "paddleocr_vl_vision", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 384, "patch_size": 14},
    },
    "lfm2-vl-1.6b": {
        "model_type": "lfm2_vl", "downsample_factor": 2, "projector_hidden_size": 2560, "projector_use_layernorm": True,
        "tie_word_embeddings": True,
        "text_config": {"model_type": "lfm2", "hidden_size": 2048, "intermediate_size": 12288, "num_hidden_layers": 16,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 65536, "block_ff_dim": 12288,
                        "block_auto_adjust_ff_dim": True, "block_multiple_of": 256, "pad_token_id": 0,
                        "layer_types": ["conv", "conv", "full_attention", "conv"], "tie_word_embeddings": True},
        "vision_config": {"model_type": "siglip2_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 26, "num_attention_heads": 16, "num_patches": 256, "patch_size": 16,
                          "vision_use_head": False},
    },
    "lfm2.5-vl-1.6b": {
        "model_type": "lfm2_vl", "downsample_factor": 2, "projector_hidden_size": 2560, "projector_use_layernorm": False,
        "tie_word_embeddings": True,
        "text_config": {"model_type": "lfm2", "hidden_size": 2048, "intermediate_size": 12288, "num_hidden_layers": 16,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 65536, "block_ff_dim": 12288,
                        "block_auto_adjust_ff_dim": True, "block_multiple_of": 256, "pad_token_id": 0,
                        "layer_types": ["conv", "conv", "full_attention", "conv"], "tie_word_embeddings": True},
        "vision_config": {"model_type": "siglip2_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 26, "num_attention_heads": 16, "num_patches": 256, "patch_size": 16,
                          "vision_use_head": False},
    },
    "ovis2-1b": {
        "model_type": "ovis2", "hidden_size": 896, "vocab_size": 151936, "image_token_id": 151665,
        "visual_indicator_token_ids": [151666, 151667, 151668, 151669, 151670], "tie_word_embeddings": True,
        "text_config": {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
                        "tie_word_embeddings": True},
        "vision_config": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 8,
                          "image_size": 448, "patch_size": 14, "hidden_stride": 2, "vocab_size": 65536,
                          "num_visual_indicator_tokens": 5},
    },
    "video-llava-7b": {
        "model_type": "video_llava", "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "pad_token_id": 0,
                        "tie_word_embeddings": False},
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
                          "image_size": 224, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
                          "projection_dim": 768, "vocab_size": 32000},
    },
}  # fmt: skip

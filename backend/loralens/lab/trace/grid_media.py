"""Generated cases of multimodal models: towers frozen, adapted and trained, with the shapes that real processors make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from loralens.core.jsontext import JsonObject
from loralens.lab.trace import grid_media_more
from loralens.lab.trace.grid_cases import shortened, small_config

LANGUAGE: Final = r".*language_model.*\.(q_proj|v_proj|down_proj)"  # as trainers that leave the tower alone write it
TEXT: Final = r".*text_model.*\.(q_proj|v_proj|down_proj)"  # where the language model has this name
# name; layers of the language model and of the tower; a picture; a longest sequence
_FAMILIES: Final[tuple[tuple[str, int, int, tuple[int, int], int], ...]] = (
    ("qwen2.5-vl-3b", 4, 6, (364, 500), 1024),
    ("qwen2-vl-2b", 3, 5, (300, 448), 512),
    ("qwen3-vl-4b", 5, 6, (320, 512), 512),
    ("qwen3-vl-30b-a3b", 4, 4, (320, 320), 256),
    ("qwen3.5-9b", 4, 4, (320, 512), 512),
    ("gemma-3-4b", 6, 5, (896, 896), 512),
    ("internvl3-2b", 3, 5, (448, 896), 1024),
    ("mistral-small-3.1-24b", 2, 5, (420, 700), 1024),
    ("pixtral-12b", 2, 5, (400, 512), 2048),
    ("paligemma-3b-224", 3, 5, (224, 224), 512),
    ("llava-v1.6-mistral-7b", 2, 5, (500, 700), 3072),
    ("llava-1.5-7b", 3, 6, (336, 336), 1024),
    ("llama-3.2-11b-vision", 5, 5, (560, 560), 256),
    ("paligemma2-3b-224", 4, 5, (224, 224), 512),
    ("llama-4-scout-whole", 4, 5, (600, 900), 1536),
    ("gemma-4-31b", 6, 5, (500, 700), 1024),
    ("gemma-4-e2b", 5, 2, (300, 900), 1024),
    ("gemma-4-unified", 6, 1, (500, 700), 1024),
    ("glm-4.1v-9b", 3, 5, (364, 500), 512),
    ("glm-4.5v-narrow", 3, 3, (364, 500), 512),
    ("glm-4.6v-flash", 2, 2, (200, 900), 512),
    ("smolvlm2-2.2b", 3, 5, (500, 700), 1536),
    ("idefics3-8b", 2, 5, (300, 1200), 1536),
)  # fmt: skip
_EVERY_RECIPE: Final = "qwen2.5-vl-3b"
_ALSO: Final = {"llama-3.2-11b-vision": ("full-text", "lora-text"), "llama-4-scout-whole": ("full-text",),
                "paligemma2-3b-224": ("full-fp32-autocast",), "gemma-4-unified": ("full-text", "lora-tower-frozen"),
                "dots-ocr": ("full-checkpointing", "full-fp32-autocast", "full-text", "lora-tower-frozen"),
                "kimi-vl-narrow": ("full-checkpointing", "full-fp32-autocast", "full-text", "lora-language", "lora-text"),
                "minimax-m3-narrow": ("full-checkpointing", "full-fp32-autocast", "full-text", "lora-text"),
                "step-3.7-narrow": ("full-fp32-autocast", "full-text", "lora-text"),
                "ernie-4.5-vl-narrow": ("full-checkpointing", "full-fp32-autocast", "full-text", "lora-text"),
                "gemma-3n-whole": ("full-checkpointing", "full-fp32-autocast", "full-text", "lora-text")}  # fmt: skip
_CORE: Final = ("full", "full-tower-frozen", "lora-everywhere", "lora-everywhere-checkpointing", "lora-language-checkpointing",
                "qlora-checkpointing")  # fmt: skip
# published members that the catalogue does not list
_EXTRA: Final[dict[str, JsonObject]] = {
    # narrower than 31B; then as E2B, whose tower for sound does not run
    "gemma-4-31b": {
        "model_type": "gemma4", "tie_word_embeddings": True, "audio_config": None,
        "text_config": {"model_type": "gemma4_text", "hidden_size": 2688, "intermediate_size": 8192, "num_hidden_layers": 60,
                        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "global_head_dim": 512,
                        "sliding_window": 1024, "num_global_key_value_heads": 2, "attention_k_eq_v": True,
                        "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "final_logit_softcapping": 30.0,
                        "use_bidirectional_attention": "vision", "vocab_size": 32768,
                        "layer_types": ["sliding_attention"] * 5 + ["full_attention"]},
        "vision_config": {"model_type": "gemma4_vision", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 72,
                          "standardize": True},
    },
    "gemma-4-e2b": {
        "model_type": "gemma4", "tie_word_embeddings": True,
        "text_config": {"model_type": "gemma4_text", "hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 35,
                        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "global_head_dim": 512,
                        "sliding_window": 512, "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 32768,
                        "num_kv_shared_layers": 0, "final_logit_softcapping": 30.0, "vocab_size": 32768,
                        "layer_types": ["sliding_attention"] * 4 + ["full_attention"]},
        "vision_config": {"model_type": "gemma4_vision", "num_hidden_layers": 16, "use_clipped_linears": True},
        "audio_config": {"model_type": "gemma4_audio", "num_hidden_layers": 12},
    },
    # narrower than 12B
    "gemma-4-unified": {
        "model_type": "gemma4_unified", "tie_word_embeddings": True,
        "text_config": {"model_type": "gemma4_unified_text", "hidden_size": 2560, "intermediate_size": 8192,
                        "num_hidden_layers": 30, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256,
                        "global_head_dim": 512, "sliding_window": 512, "num_global_key_value_heads": 2,
                        "attention_k_eq_v": True, "num_kv_shared_layers": 0, "final_logit_softcapping": 30.0,
                        "vocab_size": 32768, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]},
        "vision_config": {"model_type": "gemma4_unified_vision", "mm_embed_dim": 2560, "output_proj_dims": 2560},
        "audio_config": {"model_type": "gemma4_unified_audio"},
    },
    "glm-4.1v-9b": {
        "model_type": "glm4v", "tie_word_embeddings": False,
        "text_config": {"model_type": "glm4v_text", "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40,
                        "num_attention_heads": 32, "num_key_value_heads": 2, "vocab_size": 151552, "pad_token_id": 151329,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12],
                                            "partial_rotary_factor": 0.5}},
        "vision_config": {"model_type": "glm4v_vision", "depth": 24, "hidden_size": 1536, "num_heads": 12,
                          "out_hidden_size": 4096, "intermediate_size": 13696, "image_size": 336, "patch_size": 14},
    },
    # narrower, with fewer experts
    "glm-4.5v-narrow": {
        "model_type": "glm4v_moe", "tie_word_embeddings": False,
        "text_config": {"model_type": "glm4v_moe_text", "hidden_size": 2048, "intermediate_size": 5472, "num_hidden_layers": 46,
                        "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 32768,
                        "n_routed_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 704, "pad_token_id": 0,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12],
                                            "partial_rotary_factor": 0.5}},
        "vision_config": {"model_type": "glm4v_moe_vision", "depth": 24, "hidden_size": 1536, "num_heads": 12,
                          "out_hidden_size": 2048, "intermediate_size": 5472, "image_size": 336, "patch_size": 14},
    },
    "glm-4.6v-flash": {
        "model_type": "glm46v", "tie_word_embeddings": False,
        "text_config": {"model_type": "glm4v_text", "hidden_size": 4096, "intermediate_size": 13696, "num_hidden_layers": 40,
                        "num_attention_heads": 32, "num_key_value_heads": 2, "vocab_size": 151552, "pad_token_id": 151329,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12],
                                            "partial_rotary_factor": 0.5}},
        "vision_config": {"model_type": "glm4v_vision", "depth": 24, "hidden_size": 1536, "num_heads": 12,
                          "out_hidden_size": 4096, "intermediate_size": 13696, "image_size": 336, "patch_size": 14},
    },
    "smolvlm2-2.2b": {
        "model_type": "smolvlm", "scale_factor": 3, "image_token_id": 49190, "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
                        "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 64, "vocab_size": 49280,
                        "pad_token_id": 2, "tie_word_embeddings": False},
        "vision_config": {"model_type": "smolvlm_vision", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 384, "patch_size": 14},
    },
    "idefics3-8b": {
        "model_type": "idefics3", "scale_factor": 2, "image_token_id": 128257, "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128259, "pad_token_id": 128002,
                        "tie_word_embeddings": False},
        "vision_config": {"model_type": "idefics3_vision", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 364, "patch_size": 14},
    },
    # narrower than Scout, and fewer experts: every expert computes every token
    "llama-4-scout-whole": {
        "model_type": "llama4",
        "text_config": {"model_type": "llama4_text", "hidden_size": 2048, "intermediate_size": 2048,
                        "intermediate_size_mlp": 4096, "num_hidden_layers": 48, "num_attention_heads": 16,
                        "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 202048, "num_local_experts": 4,
                        "num_experts_per_tok": 1, "tie_word_embeddings": False},
        "vision_config": {"model_type": "llama4_vision_model", "hidden_size": 1408, "intermediate_size": 5632,
                          "num_hidden_layers": 34, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
                          "vision_output_dim": 4096, "pixel_shuffle_ratio": 0.5, "projector_input_dim": 4096,
                          "projector_output_dim": 4096},
    },
    "paligemma2-3b-224": {
        "model_type": "paligemma", "image_token_index": 257152, "projection_dim": 2304,
        "text_config": {"model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
                        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "num_image_tokens": 256,
                        "vocab_size": 257216},
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_attention_heads": 16, "num_hidden_layers": 27, "image_size": 224, "patch_size": 14,
                          "projection_dim": 2304, "vision_use_head": False},
    },
    # two of five language layers look at the picture, one of the tower's is global
    "llama-3.2-11b-vision": {
        "model_type": "mllama", "image_token_index": 128256, "tie_word_embeddings": False,
        "text_config": {"model_type": "mllama_text_model", "hidden_size": 4096, "intermediate_size": 14336,
                        "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
                        "cross_attention_layers": [1, 3], "tie_word_embeddings": False},
        "vision_config": {"model_type": "mllama_vision_model", "hidden_size": 1280, "intermediate_size": 5120,
                          "num_hidden_layers": 32, "num_global_layers": 2, "attention_heads": 16, "image_size": 224,
                          "patch_size": 14, "max_num_tiles": 4, "vision_output_dim": 3840,
                          "intermediate_layers_indices": [1, 3]},
    },
    "qwen3.5-9b": {
        "model_type": "qwen3_5", "tie_word_embeddings": False,
        "text_config": {"model_type": "qwen3_5_text", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32,
                        "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 248320, "head_dim": 256,
                        "linear_num_value_heads": 32},
        "vision_config": {"model_type": "qwen3_5_vision", "depth": 27, "out_hidden_size": 4096},
    },
    "qwen2-vl-2b": {
        "model_type": "qwen2_vl", "tie_word_embeddings": True,
        "text_config": {"model_type": "qwen2_vl_text", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936},
        "vision_config": {"model_type": "qwen2_vl", "depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16,
                          "mlp_ratio": 4, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2},
    },
    "mistral-small-3.1-24b": {
        "model_type": "mistral3", "image_token_index": 10, "multimodal_projector_bias": False, "projector_hidden_act": "gelu",
        "spatial_merge_size": 2, "vision_feature_layer": -1, "tie_word_embeddings": False,
        "text_config": {"model_type": "mistral", "hidden_size": 5120, "intermediate_size": 32768, "num_hidden_layers": 40,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
                        "sliding_window": None, "tie_word_embeddings": False},
        "vision_config": {"model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                          "num_attention_heads": 16, "head_dim": 64, "image_size": 1540, "patch_size": 14,
                          "hidden_act": "silu"},
    },
    "pixtral-12b": {
        "model_type": "llava", "image_token_index": 10, "projector_hidden_act": "gelu", "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full", "tie_word_embeddings": False,
        "text_config": {"model_type": "mistral", "hidden_size": 5120, "intermediate_size": 14336, "num_hidden_layers": 40,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
                        "sliding_window": None, "tie_word_embeddings": False},
        "vision_config": {"model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                          "num_attention_heads": 16, "head_dim": 64, "image_size": 1024, "patch_size": 16,
                          "hidden_act": "silu"},
    },
    "internvl3-2b": {
        "model_type": "internvl", "downsample_ratio": 0.5, "image_seq_length": 256, "projector_hidden_act": "gelu",
        "vision_feature_layer": -1, "vision_feature_select_strategy": "default", "tie_word_embeddings": False,
        "text_config": {"model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151674,
                        "tie_word_embeddings": False},
        "vision_config": {"model_type": "internvl_vision", "hidden_size": 1024, "intermediate_size": 4096,
                          "num_attention_heads": 16, "num_hidden_layers": 24, "image_size": [448, 448],
                          "patch_size": [14, 14], "attention_bias": True, "norm_type": "layer_norm",
                          "use_mean_pooling": True},
    },
    "paligemma-3b-224": {
        "model_type": "paligemma", "image_token_index": 257152, "projection_dim": 2048, "hidden_size": 2048,
        "text_config": {"model_type": "gemma", "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
                        "num_attention_heads": 8, "num_key_value_heads": 1, "num_image_tokens": 256, "vocab_size": 257216},
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                          "num_attention_heads": 16, "num_hidden_layers": 27, "image_size": 224, "patch_size": 14,
                          "projection_dim": 2048, "vision_use_head": False},
    },
    "llava-v1.6-mistral-7b": {
        "model_type": "llava_next", "projector_hidden_act": "gelu", "vision_feature_layer": -2, "image_token_index": 32000,
        "vision_feature_select_strategy": "default", "tie_word_embeddings": False,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
        "text_config": {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32064, "sliding_window": None,
                        "tie_word_embeddings": False},
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "image_size": 336,
                          "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
                          "vocab_size": 32000},
    },
    "llava-1.5-7b": {
        "model_type": "llava", "projector_hidden_act": "gelu", "vision_feature_layer": -2, "image_token_index": 32000,
        "vision_feature_select_strategy": "default", "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                        "num_attention_heads": 32, "vocab_size": 32064, "tie_word_embeddings": False},
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "image_size": 336,
                          "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
                          "vocab_size": 32000},
    },
}  # fmt: skip
# fields of a tower that go with its layers
_TOWER_LAYERS: Final = ("depth", "num_hidden_layers", "encoder_layers")


def media_config(name: str, layers: int, tower: int) -> JsonObject:
    """The model's config with few layers in both parts and everything else as published."""
    known = {**_EXTRA, **grid_media_more.CONFIGS}
    config = shortened(known[name], layers) if name in known else small_config(name, layers)
    for part in ("vision_config", "audio_config"):
        if isinstance(config.get(part), Mapping):
            config[part] = {**config[part], **{key: tower for key in _TOWER_LAYERS if key in config[part]}}
            for indices in ("fullatt_block_indexes", "deepstack_visual_indexes"):
                if config[part].get(indices):
                    config[part][indices] = [1, tower // 2]
            if config[part].get("intermediate_layers_indices"):
                config[part]["intermediate_layers_indices"] = [1, tower - 2]
    return config


_LANGUAGE: Final[dict[str, str]] = dict.fromkeys(("smolvlm2-2.2b", "idefics2-8b", "idefics3-8b"), TEXT)
_LANGUAGE["dots-ocr"] = r"model\.layers.*\.(q_proj|v_proj|down_proj)"
_LANGUAGE["phi-4-multimodal"] = r"model\.layers.*\.(qkv_proj|down_proj)"
_LANGUAGE["glm-4.5v-narrow"] = r".*language_model.*\.(q_proj|v_proj)"
# PEFT cannot adapt Llama 4's router, which all-linear takes in, nor has an adapter on experts dropout
_NAMED: Final = {"glm-4.5v-narrow": ["q_proj", "k_proj", "v_proj", "o_proj", "qkv"],
                 "llama-4-scout-whole": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "fc1",
                                         "fc2", "linear_1", "linear"]}  # fmt: skip


def _recipes(
    size: tuple[int, int],
    length: int,
    targets: Any = "all-linear",
    language_targets: str = LANGUAGE,
    skips: list[str] | None = None,
) -> dict[str, tuple[str, JsonObject]]:
    lora = {"rank": 16, "alpha": 32, "dropout": 0.05}
    everywhere, language = ({**lora, "target_modules": names} for names in (targets, language_targets))
    one = {"micro_batch_size": 1, "sequence_length": length, "images": 1, "image_size": list(size)}
    two = {**one, "micro_batch_size": 2, "images": 2, "sequence_length": 2 * length}
    nf4 = {"type": "nf4", "double_quant": True, "prepare_kbit": True, **({"skip_modules": skips} if skips else {})}
    return {
        "full": ("full", {**one, "autocast": None}),
        "full-checkpointing": ("full", {**two, "autocast": None, "gradient_checkpointing": True}),
        "full-fp32-autocast": ("full", {**one, "weights_dtype": "float32"}),
        "full-tower-frozen": ("full", {**two, "autocast": None, "freeze_tower": "tower"}),
        "full-text": ("full", {**one, "images": 0, "autocast": None}),
        "lora-everywhere": ("lora", {**two, "lora": everywhere}),
        "lora-everywhere-checkpointing": ("lora", {**one, "gradient_checkpointing": True, "lora": everywhere}),
        "lora-language": ("lora", {**two, "lora": language}),
        "lora-language-checkpointing": ("lora", {**two, "gradient_checkpointing": True, "lora": language}),
        "lora-tower-frozen": ("lora", {**one, "lora": everywhere, "freeze_tower": "tower+projector"}),
        "lora-text": ("lora", {**one, "images": 0, "lora": everywhere}),
        "qlora-checkpointing": ("qlora", {**one, "gradient_checkpointing": True, "lora": everywhere, "quantization": nf4}),
    }  # fmt: skip


def cases() -> Iterator[tuple[str, JsonObject]]:
    """Name and request (config, method, recipe) of every case."""
    named = {**_NAMED, **grid_media_more.NAMED}
    for name, layers, tower, size, length in (*_FAMILIES, *grid_media_more.FAMILIES):
        config, beside = media_config(name, layers, tower), grid_media_more.BESIDE.get(name, {})
        for word, (method, recipe) in _recipes(
            size,
            length,
            named.get(name, "all-linear"),
            _LANGUAGE.get(name, LANGUAGE),
            grid_media_more.SKIPS.get(name),
        ).items():
            if name != _EVERY_RECIPE and word not in (*_CORE, *_ALSO.get(name, ())):
                continue
            yield (
                f"{name}/{word}",
                {"config": config, "method": method, "recipe": {"gradient_checkpointing": False, **recipe, **beside}},
            )

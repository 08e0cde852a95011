"""Generated cases of models that hear: towers frozen, adapted and trained, with the frames that real feature extractors make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from loralens.core.jsontext import JsonObject

_LANGUAGE: Final = r".*language_model.*\.(q_proj|v_proj|down_proj)"
_CONFIGS: Final[dict[str, JsonObject]] = {
    # published widths, three layers and four
    "voxtral-mini-3b": {
        "model_type": "voxtral", "audio_token_id": 24, "projector_hidden_act": "gelu", "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 3,
                        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
                        "rms_norm_eps": 1e-05, "rope_theta": 100000000.0, "max_position_embeddings": 131072,
                        "tie_word_embeddings": False},
        "audio_config": {"model_type": "voxtral_encoder", "hidden_size": 1280, "intermediate_size": 5120,
                         "num_hidden_layers": 4, "num_attention_heads": 20, "num_mel_bins": 128,
                         "max_source_positions": 1500, "vocab_size": 51866},
    },
    "qwen2-audio-7b": {
        "model_type": "qwen2_audio", "audio_token_index": 151646,
        "text_config": {"model_type": "qwen2", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 3,
                        "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 156032, "rms_norm_eps": 1e-05,
                        "tie_word_embeddings": False},
        "audio_config": {"model_type": "qwen2_audio_encoder", "d_model": 1280, "encoder_layers": 4,
                         "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "num_mel_bins": 128},
    },
    "qwen2.5-omni-7b": {
        "model_type": "qwen2_5_omni_thinker", "tie_word_embeddings": False,
        "text_config": {"model_type": "qwen2_5_omni_text", "hidden_size": 3584, "intermediate_size": 18944,
                        "num_hidden_layers": 3, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
                        "pad_token_id": 0, "tie_word_embeddings": False,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}},
        "audio_config": {"model_type": "qwen2_5_omni_audio_encoder", "d_model": 1280, "encoder_layers": 3,
                         "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "output_dim": 3584, "n_window": 100},
        "vision_config": {"model_type": "qwen2_5_omni_vision_encoder", "depth": 3, "hidden_size": 1280,
                          "intermediate_size": 3420, "out_hidden_size": 3584, "fullatt_block_indexes": [1]},
    },
    # narrower than 30B-A3B, with fewer experts
    "qwen3-omni-moe-narrow": {
        "model_type": "qwen3_omni_moe_thinker", "tie_word_embeddings": False,
        "text_config": {"model_type": "qwen3_omni_moe_text", "hidden_size": 2048, "intermediate_size": 768,
                        "num_hidden_layers": 4, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
                        "vocab_size": 65536, "num_experts": 32, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
                        "pad_token_id": 0, "tie_word_embeddings": False,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [24, 20, 20]}},
        "audio_config": {"model_type": "qwen3_omni_moe_audio_encoder", "d_model": 1280, "encoder_layers": 3,
                         "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "output_dim": 2048},
        "vision_config": {"model_type": "qwen3_omni_moe_vision_encoder", "depth": 4, "out_hidden_size": 2048,
                          "deepstack_visual_indexes": [1, 2]},
    },
}  # fmt: skip
# PEFT refuses all-linear there
_NAMED: Final = {"qwen3-omni-moe-narrow": ["q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv", "linear_fc1", "linear_fc2",
                                          "proj1", "proj2", "conv_out"]}  # fmt: skip
_PICTURES: Final = {"images": 1, "image_size": [252, 364]}  # of those that see too


def _recipes(sees: bool, targets: list[str] | str, short: bool) -> dict[str, tuple[str, JsonObject]]:
    lora = {"rank": 16, "alpha": 32}
    everywhere, language = ({**lora, "target_modules": names} for names in (targets, _LANGUAGE))
    one: JsonObject = {"micro_batch_size": 1, "sequence_length": 512, "audio_seconds": 30}
    two: JsonObject = {"micro_batch_size": 2, "sequence_length": 1024, "audio_seconds": 45}
    if short:  # one sound of at most half a minute, and a shorter one that is padded to it
        one, two = {**one, "sequence_length": 1024}, {**two, "audio_seconds": 12}
    if sees:
        one |= {**_PICTURES, "sequence_length": 1024}
        two |= {**_PICTURES, "sequence_length": 2048}
    return {
        "full": ("full", {**one, "autocast": None}),
        "full-checkpointing": ("full", {**two, "autocast": None, "gradient_checkpointing": True}),
        "full-tower-frozen": ("full", {**two, "autocast": None, "freeze_tower": "tower"}),
        "full-text": ("full", {**one, "audio_seconds": 0, **({"images": 0} if sees else {}), "autocast": None}),
        "full-fp32-autocast": ("full", {**one, "weights_dtype": "float32"}),
        "lora-everywhere": ("lora", {**two, "lora": {**everywhere, "dropout": 0.05}}),
        "lora-everywhere-checkpointing": ("lora", {**one, "gradient_checkpointing": True, "lora": everywhere}),
        "lora-language-checkpointing": ("lora", {**two, "gradient_checkpointing": True, "lora": language}),
        "qlora": ("qlora", {**one, "lora": everywhere}),
        "qlora-checkpointing": ("qlora", {**two, "gradient_checkpointing": True, "lora": everywhere}),
    }


def cases() -> Iterator[tuple[str, JsonObject]]:
    """Name and request (config, method, recipe) of every case."""
    for name, config in _CONFIGS.items():
        for word, (method, recipe) in _recipes(
            "vision_config" in config, _NAMED.get(name, "all-linear"), name == "qwen2-audio-7b"
        ).items():
            yield (
                f"{name}/{word}",
                {"config": config, "method": method, "recipe": {"gradient_checkpointing": False, **recipe}},
            )

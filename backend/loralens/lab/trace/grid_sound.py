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
}  # fmt: skip


def _recipes() -> dict[str, tuple[str, JsonObject]]:
    lora = {"rank": 16, "alpha": 32}
    everywhere, language = ({**lora, "target_modules": names} for names in ("all-linear", _LANGUAGE))
    one = {"micro_batch_size": 1, "sequence_length": 512, "audio_seconds": 30}
    two = {"micro_batch_size": 2, "sequence_length": 1024, "audio_seconds": 45}
    return {
        "full": ("full", {**one, "autocast": None}),
        "full-checkpointing": ("full", {**two, "autocast": None, "gradient_checkpointing": True}),
        "full-tower-frozen": ("full", {**two, "autocast": None, "freeze_tower": "tower"}),
        "full-text": ("full", {**one, "audio_seconds": 0, "autocast": None}),
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
        for word, (method, recipe) in _recipes().items():
            yield (
                f"{name}/{word}",
                {"config": config, "method": method, "recipe": {"gradient_checkpointing": False, **recipe}},
            )

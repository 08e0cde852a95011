"""The language model inside a multimodal config: where its fields are, and what transformers fills in.

Source: transformers 5.23, models/*/configuration_*.py: the defaults of each text config, the type of each wrapper's text
part, and older files that hold the text fields beside `vision_config`.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any, Final

from loralens.core.architecture.config import Config
from loralens.core.architecture.tied_head import WORD, left_to_text, tied

# wrapper -> its text part, where the name is not `<wrapper>_text` or the file does not say
_TEXT: Final = {
    "aya_vision": "cohere2",
    "deepseek_vl": "llama",
    "got_ocr2": "qwen2",
    "llava": "llama",
    "llava_next": "llama",
    "llava_next_video": "llama",
    "llava_onevision": "qwen2",
    "idefics2": "mistral",
    "idefics3": "llama",
    "smolvlm": "llama",
    "mistral3": "mistral",
    "ovis2": "qwen2",
    "paligemma": "gemma",
    "internvl": "qwen2",
    "interns1": "qwen2",
    "kimi_k25": "deepseek_v3",
    "kimi_vl": "deepseek_v3",
    "lfm2_vl": "lfm2",
    "minicpmv4_6": "qwen3_5_text",
    "video_llava": "llama",
    "voxtral": "llama",
    "qwen2_audio": "qwen2",
    "step3p7": "step3p5",
    "mllama": "mllama_text_model",
    "glm46v": "glm4v_text",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
}
# text fields at the top level
_FLAT: Final = {name: f"{name}_text" for name in ("qwen2_vl", "qwen2_5_vl", "paddleocr_vl")} | {
    "got_ocr2": "qwen2",
    "dots_ocr": "qwen2",
}
# whose text fields at the top level transformers does not read: it takes these instead
_OWN_SIZES: Final[dict[str, dict[str, Any]]] = {
    "got_ocr2": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 151860,
        "max_position_embeddings": 32768,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
    },
}
_FIELDS: Final = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_SIZES: Final[dict[str, tuple[int, int, int, int, int]]] = {
    "llama": (4096, 11008, 32, 32, 32000),
    "mistral": (4096, 14336, 32, 32, 32000),
    "qwen2": (4096, 22016, 32, 32, 151936),
    "qwen3": (4096, 22016, 32, 32, 151936),
    "cohere2": (8192, 22528, 40, 64, 256000),
    "gemma": (3072, 24576, 28, 16, 256000),
    "gemma2": (2304, 9216, 26, 8, 256000),
    "gemma3n_text": (2048, 16384, 35, 8, 262400),
    "gemma3_text": (2304, 9216, 26, 8, 262208),
    "qwen2_vl_text": (8192, 29568, 80, 64, 152064),
    "qwen2_5_vl_text": (8192, 29568, 80, 64, 152064),
    "qwen3_vl_text": (4096, 22016, 32, 32, 151936),
    "qwen3_vl_moe_text": (2048, 5632, 24, 16, 151936),
    "qwen3_5_text": (4096, 12288, 32, 16, 248320),
    "llama4_text": (5120, 8192, 48, 40, 202048),
    "glm4v_text": (4096, 13696, 40, 32, 151552),
    "glm4v_moe_text": (4096, 10944, 46, 96, 151424),
    "qwen2_5_omni_text": (3584, 18944, 28, 28, 152064),
    "qwen3_omni_moe_text": (2048, 18944, 28, 28, 3584),
    "muse_glimmer_text": (6656, 19968, 52, 32, 202048),
    "paddleocr_vl_text": (1024, 3072, 18, 16, 103424),
    "glm_ocr_text": (1024, 4096, 16, 16, 59392),
    "mllama_text_model": (4096, 14336, 40, 32, 128256),
    "step3p5": (4096, 11264, 45, 64, 128815),
    "minimax_m3_vl_text": (6144, 3072, 60, 64, 200064),
    "ernie4_5_vl_moe_text": (2560, 12288, 28, 20, 103424),
}
_OUTER_ALONE: Final = ("step3p7",)  # whose text's own type transformers does not read
TALKS: Final = ("qwen2_5_omni", "qwen3_omni_moe")  # whose thinker trains, and talker does not
_SIBLINGS: Final = ("vision_config", "audio_config")


def trained_part(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """The thinker's own config, of a model that also talks; any other config as it is."""
    outer, inner = entries.get("model_type"), entries.get("thinker_config")
    if outer not in TALKS or not isinstance(inner, Mapping):
        return entries
    return ChainMap({"model_type": f"{outer}_thinker"}, inner)  # type: ignore[arg-type]


def text_part(config: Config, known: Any) -> tuple[Config, str]:
    """The language model's own config and its model type; the config itself where nothing is nested."""
    outer = config.text("model_type", "")
    if outer in known:
        return config, outer
    inner = config.nested("text_config")
    if inner is None:
        flat = any(config.nested(name) is not None for name in _SIBLINGS)
        if not flat or outer not in _FLAT:
            return config, outer
        if outer in _OWN_SIZES:
            return _filled(config, Config(_OWN_SIZES[outer], config.transformers), _FLAT[outer]), _FLAT[outer]
        return config if left_to_text(config) else config.over({WORD: tied(config)}), _FLAT[outer]
    model_type = _type_of(outer, inner)
    return _filled(config, inner, model_type), model_type


def _type_of(outer: str, inner: Config) -> str:
    own = "" if outer in _OUTER_ALONE else inner.text("model_type", "")
    return own or _TEXT.get(outer, f"{outer}_text")


def _filled(outer: Config, inner: Config, model_type: str) -> Config:
    """The nested fields, with the defaults that transformers would take for what they leave out."""
    defaults: dict[str, object] = dict(zip(_FIELDS, _SIZES.get(model_type, ()), strict=False))
    wrapper = outer.text("model_type", "")
    # PaliGemma switches it on for its prefix, which is a mask of its own making
    instead: dict[str, object] = {"use_bidirectional_attention": False} if wrapper == "paligemma" else {}
    head = tied(outer)
    if head is not None:
        instead[WORD] = head
    return inner.over(instead, defaults)


def filled_fields(entries: Any) -> list[str]:
    """The sizes that a nested text config leaves to transformers, as `name=value`."""
    config = Config(entries)
    inner = config.nested("text_config")
    if inner is None:
        return []
    outer = config.text("model_type", "")
    model_type = _type_of(outer, inner)
    sizes = zip(_FIELDS, _SIZES.get(model_type, ()), strict=False)
    return [f"{name}={value}" for name, value in sizes if name not in inner.entries]


def unread_fields(entries: Any) -> list[str]:
    """Text fields at the top level that transformers does not read, where they say something else than its own, as `name=value`."""
    config = Config(entries)
    own = {} if config.nested("text_config") else _OWN_SIZES.get(config.text("model_type", ""), {})
    return [f"{name}={value}" for name, value in own.items() if config.has(name) and config.entries[name] != value]

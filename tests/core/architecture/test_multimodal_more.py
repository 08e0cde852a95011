"""Multimodal configs, continued: towers of several parts are counted as transformers builds them."""

from __future__ import annotations

from typing import Any

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.architecture.families.ovis2 import covering
from loralens.core.architecture.registry import count_parameters
from loralens.core.errors import InvalidInput, UnsupportedArchitecture

TEXT = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "pad_token_id": 0,
}
SAM = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "output_channels": 20,
    "global_attn_indexes": [1],
}
GOT = {
    "text_config": {**TEXT, "model_type": "qwen2"},
    "vision_config": {**SAM, "mlp_dim": 100, "image_size": 64, "window_size": 3},
}
CASES: dict[str, dict[str, Any]] = {
    "phi4_multimodal": {
        **TEXT, "num_key_value_heads": 6, "bos_token_id": 1, "eos_token_id": 2,
        "vision_config": {"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3, "num_attention_heads": 4},
        "audio_config": {"hidden_size": 40, "intermediate_size": 60, "num_blocks": 2, "num_attention_heads": 4,
                         "ext_pw_out_channel": 40, "depthwise_separable_out_channel": 40, "nemo_conv_channels": 24},
    },
    "deepseek_vl": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": {"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3, "num_attention_heads": 4,
                          "image_size": 56, "patch_size": 14, "model_type": "siglip_vision_model"},
    },
    "got_ocr2": GOT,
    "ovis2": {
        "hidden_size": 96, "vocab_size": 1000, "text_config": {**TEXT, "model_type": "qwen2", "vocab_size": 1000},
        "vision_config": {"hidden_size": 80, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 5,
                          "image_size": 56, "patch_size": 14, "hidden_stride": 2, "vocab_size": 300},
    },
    "got_ocr2, untied": {**GOT, "tie_word_embeddings": False},
    "deepseek_ocr2": {
        "text_config": {**TEXT, "model_type": "deepseek_ocr2_text", "n_routed_experts": 4, "num_experts_per_tok": 2,
                        "moe_intermediate_size": 24, "mlp_layer_types": ["dense", "sparse", "sparse"]},
        "vision_config": {
            "sam_config": {**SAM, "mlp_ratio": 2.5, "downsample_channels": [24, 36]},
            "encoder_config": {"hidden_size": 36, "intermediate_size": 60, "num_hidden_layers": 2, "num_attention_heads": 6,
                               "num_key_value_heads": 2},
        },
    },
}  # fmt: skip


def config_of(name: str) -> dict[str, Any]:
    return {"model_type": name.split(",")[0], **CASES[name]}


@pytest.mark.parametrize("name", CASES)
def test_the_whole_model_is_counted_as_transformers_builds_it(name: str) -> None:
    import torch
    import transformers

    config = config_of(name)
    read = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        sees = type(read) in transformers.AutoModelForImageTextToText._model_mapping
        maker = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
        whole = maker.from_config(read)
    assert count_parameters(config).total == sum(parameter.numel() for parameter in whole.parameters())


def test_got_ocr_2_says_that_pictures_are_not_cut() -> None:
    words = {"images": 1, "sequence_length": 512}
    said = memory_answer({"config": config_of("got_ocr2"), "method": "full", "recipe": words})["estimates"][0]
    assert any("crop_to_patches" in line for line in said["assumptions"])
    assert any("16 patches in the tower, 1 tokens of the sequence" in line for line in said["assumptions"])


@pytest.mark.parametrize("size", [(100, 90), (500, 700), (448, 1344), (2000, 300), (1500, 1600)])
def test_ovis_2_cuts_pictures_as_its_processor_does(size: tuple[int, int]) -> None:
    from transformers.models.ovis2.image_processing_pil_ovis2 import get_min_tile_covering_grid

    down, across = get_min_tile_covering_grid(size, 448, 12)
    assert covering(*size, 448) == down * across


@pytest.mark.parametrize("field, value", [("tokenize_function", "st_argmax"), ("hidden_stride", 3)])
def test_visual_words_that_ovis_2_is_not_modelled_with_are_refused(field: str, value: object) -> None:
    config = config_of("ovis2")
    with pytest.raises(UnsupportedArchitecture, match="hidden_stride"):
        count_parameters({**config, "vision_config": {**config["vision_config"], field: value}})


def test_phi_4_multimodal_says_that_sound_is_not_modelled() -> None:
    words = {"images": 1, "image_size": [500, 700], "sequence_length": 1536}
    said = memory_answer({"config": config_of("phi4_multimodal"), "method": "full", "recipe": words})["estimates"][0]
    assert any("sound, which is not modelled" in line for line in said["assumptions"])
    assert any("5,120 patches in the tower, 1,032 tokens" in line for line in said["assumptions"])
    with pytest.raises(InvalidInput, match="less than 10 pixels"):
        memory_answer(
            {"config": config_of("phi4_multimodal"), "method": "full", "recipe": {**words, "image_size": [1, 400]}}
        )


@pytest.mark.parametrize(
    "field, value", [("image_size", 336), ("crop_size", 336), ("feature_layer", -1), ("feature_layer", [1])]
)
def test_a_tower_that_phi_4_multimodal_is_not_modelled_with_is_refused(field: str, value: object) -> None:
    config = config_of("phi4_multimodal")
    with pytest.raises(UnsupportedArchitecture, match="modelled"):
        count_parameters({**config, "vision_config": {**config["vision_config"], field: value}})


@pytest.mark.parametrize("field, value", [("mlp_layer_types", None), ("topk_method", "group_limited_greedy")])
def test_experts_that_deepseek_ocr_2_is_not_modelled_with_are_refused(field: str, value: object) -> None:
    config = config_of("deepseek_ocr2")
    with pytest.raises(UnsupportedArchitecture, match=field) as problem:
        count_parameters({**config, "text_config": {**config["text_config"], field: value}})
    assert problem.value.field == f"config.{field}"


def test_a_tower_that_sees_pictures_and_a_video_has_its_gradients_once() -> None:
    config = {
        "model_type": "qwen2_vl", "tie_word_embeddings": False,
        "text_config": {**TEXT, "model_type": "qwen2_vl_text"},
        "vision_config": {"depth": 8, "embed_dim": 160, "num_heads": 4, "hidden_size": 96},
    }  # fmt: skip
    seen = {"images": 1, "image_size": [280, 420], "sequence_length": 400, "autocast": None}

    def held(**more: int) -> int:
        asked = {"config": config, "method": "full", "recipe": {**seen, **more}}
        (found,) = (p for p in memory_answer(asked)["estimates"][0]["phases"] if p["phase"] == "optimizer")
        return int(found["peak_bytes"])

    assert 0 < held(video_frames=2) - held() < 600 * 1176 * 4 + 4096  # the video's patches, and nothing of the tower


@pytest.mark.parametrize("trainer", ["torchtune", "litgpt"])
def test_a_framework_without_this_model_has_the_model_of_transformers(trainer: str) -> None:
    """GOT-OCR's text config says no type of its own: it is read as Qwen2's, which torchtune has a model of."""
    body: dict[str, Any] = {"model": "got-ocr-2.0", "method": "lora", "recipe": {"trainer": trainer}}
    found = memory_answer(body, verdicts=False)["estimates"][0]["parameters"]
    assert found["total"] - found["trainable"] == 560_528_640

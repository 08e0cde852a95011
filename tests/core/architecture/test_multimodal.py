"""Multimodal configs: the language model is counted, the tower beside it is counted or named, nothing is left unsaid."""

from __future__ import annotations

from typing import Any

import pytest
from core.architecture.multimodal_cases import SPARSE, TEXT, VIT

from loralens.core.answer.answers import memory_answer, parameters_answer
from loralens.core.architecture.causal import Root
from loralens.core.architecture.multimodal import left_out_note, left_out_parameters
from loralens.core.architecture.registry import build, count_parameters, media_class
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.recipe import Recipe

VL = {"depth": 3, "hidden_size": 48, "num_heads": 4, "intermediate_size": 100, "patch_size": 14, "out_hidden_size": 96}
CASES: dict[str, dict[str, Any]] = {
    **SPARSE,
    "gemma3": {
        "text_config": {**TEXT, "model_type": "gemma3_text", "head_dim": 32},
        "vision_config": {**VIT, "model_type": "siglip_vision_model", "image_size": 56, "vision_use_head": False},
    },
    "gemma3, with a head": {
        "text_config": {**TEXT, "model_type": "gemma3_text", "head_dim": 32},
        "vision_config": {**VIT, "model_type": "siglip_vision_model", "image_size": 84},
    },
    "paligemma": {
        "text_config": {**TEXT, "model_type": "gemma", "head_dim": 32},
        "vision_config": {**VIT, "model_type": "siglip_vision_model", "image_size": 56},
    },
    "llava": {
        "text_config": {**TEXT, "model_type": "llama", "tie_word_embeddings": False},
        "vision_config": {**VIT, "model_type": "clip_vision_model", "image_size": 56},
    },
    "mistral3": {
        "text_config": {**TEXT, "model_type": "mistral", "head_dim": 32},
        "vision_config": {**VIT, "model_type": "pixtral", "image_size": 56},
        "tie_word_embeddings": False,
    },
    "qwen2_vl": {
        "text_config": {**TEXT, "model_type": "qwen2_vl_text"},
        "vision_config": {
            "depth": 3, "embed_dim": 48, "num_heads": 4, "hidden_size": 96, "patch_size": 14, "mlp_ratio": 3,
        },
        "tie_word_embeddings": True,
    },
    "qwen2_5_vl": {
        "text_config": {**TEXT, "model_type": "qwen2_5_vl_text"},
        "vision_config": {**VL, "temporal_patch_size": 3, "spatial_merge_size": 3},
    },
    "qwen3_vl": {
        "text_config": {**TEXT, "model_type": "qwen3_vl_text", "head_dim": 32},
        "vision_config": {**VL, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64},
    },
    "qwen3_5": {
        "text_config": {**TEXT, "model_type": "qwen3_5_text"},
        "vision_config": {**VL, "num_position_embeddings": 64},
    },
    "llama4": {
        "text_config": {**TEXT, "model_type": "llama4_text", "num_local_experts": 4, "intermediate_size_mlp": 200},
        "vision_config": {
            **VIT, "image_size": 56, "projector_input_dim": 64, "projector_output_dim": 80, "vision_output_dim": 80,
            "intermediate_size": 192, "pixel_shuffle_ratio": 0.5,
        },
    },
    "idefics2": {
        "text_config": {**TEXT, "model_type": "mistral", "tie_word_embeddings": False},
        "vision_config": {**VIT, "image_size": 56},
        "perceiver_config": {"resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 4, "resampler_head_dim": 8,
                             "num_key_value_heads": 2, "hidden_size": 80},
    },
    "idefics3": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": {**VIT, "image_size": 56},
    },
    "smolvlm": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": {**VIT, "image_size": 84},
        "scale_factor": 3,
    },
    "mllama": {
        "text_config": {**TEXT, "model_type": "mllama_text_model", "cross_attention_layers": [1]},
        "vision_config": {
            "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 3, "num_global_layers": 2, "attention_heads": 4,
            "image_size": 56, "patch_size": 14, "vision_output_dim": 144, "intermediate_layers_indices": [0, 2],
        },
    },
    "gemma4": {
        "text_config": {
            **TEXT, "model_type": "gemma4_text", "head_dim": 32, "global_head_dim": 48, "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 150,
        },
        "vision_config": {
            "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 16, "position_embedding_size": 30, "use_clipped_linears": True,
        },
        "audio_config": {"hidden_size": 64, "num_hidden_layers": 2, "output_proj_dims": 40},
    },
    "gemma4, without sound": {
        "text_config": {**TEXT, "model_type": "gemma4_text", "head_dim": 32, "hidden_size_per_layer_input": 0},
        "vision_config": {"hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4},
        "audio_config": None,
    },
    "gemma4_unified": {
        "text_config": {**TEXT, "model_type": "gemma4_unified_text", "head_dim": 32},
        "vision_config": {"patch_size": 4, "mm_embed_dim": 48, "output_proj_dims": 48, "mm_posemb_size": 30},
        "audio_config": {"audio_embed_dim": 60},
    },
    **{
        name: {
            "text_config": {**TEXT, "model_type": text, "hidden_size": 192, **more},
            "vision_config": {
                "depth": 2, "hidden_size": 48, "num_heads": 4, "intermediate_size": 100, "out_hidden_size": 192,
                "image_size": 56,
            },
            "tie_word_embeddings": False,
        }
        for name, text, more in (
            ("glm4v", "glm4v_text", {}),
            ("glm46v", "glm4v_text", {}),
            ("glm4v_moe", "glm4v_moe_text", {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}),
        )
    },
    "muse_glimmer": {
        "text_config": {**TEXT, "model_type": "muse_glimmer_text", "head_dim": 32},
        "vision_config": {
            "hidden_size": 48, "intermediate_size": 100, "num_hidden_layers": 2, "num_attention_heads": 4,
            "pos_emb_height": 8, "pos_emb_width": 8,
        },
        "out_hidden_size": 192, "projector_hidden_size": 60, "tie_word_embeddings": False,
    },
    "kimi_k25": {
        "text_config": {**TEXT, "model_type": "deepseek_v3", "num_key_value_heads": 6, "n_routed_experts": 4, "n_group": 2,
                        "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
        "vision_config": {**VIT, "pos_emb_height": 6, "pos_emb_width": 6}, "projection_hidden_size": 48,
        "tie_word_embeddings": False,
    },
    "kimi_k25, tied by default": {
        "text_config": {**TEXT, "model_type": "kimi_k2", "num_key_value_heads": 6, "n_routed_experts": 4, "n_group": 1,
                        "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
        "vision_config": VIT, "projection_hidden_size": 48,
    },
    "paddleocr_vl": {
        "text_config": {**TEXT, "model_type": "paddleocr_vl_text", "head_dim": 32},
        "vision_config": {**VIT, "image_size": 56},
    },
    "paddleocr_vl, flat": {**TEXT, "head_dim": 32, "vision_config": {**VIT, "image_size": 56}},
    "qwen2_5_omni_thinker": {
        "text_config": {**TEXT, "model_type": "qwen2_5_omni_text"},
        "vision_config": {**VL, "model_type": "qwen2_5_omni_vision_encoder"},
        "audio_config": {"d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 100,
                         "output_dim": 96},
    },
    "qwen3_omni_moe_thinker": {
        "text_config": {**TEXT, "model_type": "qwen3_omni_moe_text", "head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2,
                        "moe_intermediate_size": 24},
        "vision_config": {**VL, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64},
        "audio_config": {"d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 100,
                         "output_dim": 96, "downsample_hidden_size": 20},
        "tie_word_embeddings": False,
    },
    "video_llava": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": {**VIT, "model_type": "clip_vision_model", "image_size": 56},
        "tie_word_embeddings": False,
    },
    "lfm2_vl": {
        "text_config": {**TEXT, "model_type": "lfm2", "layer_types": ["conv", "full_attention", "conv"]},
        "vision_config": {**VIT, "model_type": "siglip2_vision_model", "patch_size": 16, "num_patches": 64},
    },
    **{
        name: {
            "text_config": {**TEXT, "model_type": "qwen3_5_text"},
            "vision_config": {**VIT, "image_size": 56},
            "insert_layer_id": 1, **more,
        }
        for name, more in (("minicpmv4_6", {"tie_word_embeddings": True}), ("minicpmv4_6, untied", {}))
    },
    "qwen2_audio": {
        "text_config": {**TEXT, "model_type": "qwen2", "tie_word_embeddings": False},
        "audio_config": {"d_model": 48, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 100},
    },
    "glm_ocr": {
        "text_config": {**TEXT, "model_type": "glm_ocr_text", "head_dim": 32},
        "vision_config": {"depth": 2, "hidden_size": 48, "num_heads": 4, "intermediate_size": 100, "out_hidden_size": 96},
        "tie_word_embeddings": False,
    },
    "aya_vision": {
        "text_config": {**TEXT, "model_type": "cohere2"},
        "vision_config": {**VIT, "model_type": "siglip_vision_model", "image_size": 56},
        "alignment_intermediate_size": 120,
    },
    "llava_onevision": {
        "text_config": {**TEXT, "model_type": "qwen2"},
        "vision_config": {**VIT, "model_type": "siglip_vision_model", "image_size": 56, "vision_use_head": False},
        "tie_word_embeddings": True,
    },
    "llava_next_video": {
        "text_config": {**TEXT, "model_type": "llama"},
        "vision_config": {**VIT, "model_type": "clip_vision_model", "image_size": 56},
        "tie_word_embeddings": False,
    },
    "mistral3, tied from outside": {
        "text_config": {**TEXT, "model_type": "mistral", "head_dim": 32, "tie_word_embeddings": False},
        "vision_config": {**VIT, "model_type": "pixtral", "image_size": 56},
        "tie_word_embeddings": True,
    },
    "gemma3, untied from outside": {
        "text_config": {**TEXT, "model_type": "gemma3_text", "head_dim": 32, "tie_word_embeddings": True},
        "vision_config": {**VIT, "model_type": "siglip_vision_model", "image_size": 56, "vision_use_head": False},
        "tie_word_embeddings": False,
    },
    "qwen2_5_vl, tied from inside": {
        "text_config": {**TEXT, "model_type": "qwen2_5_vl_text", "tie_word_embeddings": True},
        "vision_config": {**VL, "temporal_patch_size": 3, "spatial_merge_size": 3},
        "tie_word_embeddings": False,
    },
    "llava, with two feature layers": {
        "text_config": {**TEXT, "model_type": "llama", "tie_word_embeddings": False},
        "vision_config": {**VIT, "model_type": "clip_vision_model", "image_size": 56},
        "vision_feature_layer": [-2, -1],
    },
}  # fmt: skip


def config_of(name: str) -> dict[str, Any]:
    return {"model_type": name.split(",")[0], **CASES[name]}


@pytest.mark.parametrize("name", CASES)
def test_language_model_and_tower_are_the_whole(name: str) -> None:
    import torch
    import transformers

    config = config_of(name)
    entries = {key: value for key, value in config.items() if key != "model_type"}
    read = transformers.AutoConfig.for_model(config["model_type"], **entries)
    with torch.device("meta"):
        sees = (
            transformers.AutoModelForImageTextToText
            if "vision_config" in config
            else transformers.AutoModelForSeq2SeqLM
        )
        whole = sees.from_config(read)
    tower = 0 if media_class(config) else left_out_parameters(config)
    assert tower is not None
    assert count_parameters(config).total + tower == sum(parameter.numel() for parameter in whole.parameters())


@pytest.mark.parametrize(("outer", "inner"), [(True, False), (False, True), (None, True)])
def test_the_text_of_llama_4_says_whether_its_head_is_tied(outer: bool | None, inner: bool) -> None:
    from core.architecture.transformers_models import meta_model, total

    config = {"model_type": "llama4", **CASES["llama4"]}
    config |= {"text_config": {**config["text_config"], "tie_word_embeddings": inner}}
    config |= {} if outer is None else {"tie_word_embeddings": outer}
    assert count_parameters(config).total == total(meta_model(config))


def test_the_published_total_of_gemma_3_4b_is_language_model_and_siglip() -> None:
    """The released config.json states few fields of the text model; the rest are transformers' defaults."""
    config = {
        "model_type": "gemma3",
        "mm_tokens_per_image": 256,
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "sliding_window": 1024,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "image_size": 896,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
            "vision_use_head": False,
        },
    }
    answer = parameters_answer({"config": config, "method": "full"})
    assert answer["parameters"]["total"] == 4_300_079_472
    assert answer["exact"]
    assert "vocab_size=262208" in answer["note"] and "left out" not in answer["note"]
    memory = memory_answer({"config": config, "method": "lora"})
    assert any("vision tower" in line for line in memory["estimates"][0]["assumptions"])
    assert memory["model"]["left_out"] == left_out_note(config)
    assert memory_answer({"model": "7B", "method": "lora"})["model"]["left_out"] == []


def test_a_tower_that_is_not_walked_is_named_and_counted() -> None:
    config = config_of("llava, with two feature layers")
    (note,) = left_out_note(config)
    assert "the vision tower (clip_vision_model) is left out with its projector" in note
    memory = memory_answer({"config": config, "method": "lora"})
    assert memory["model"]["left_out"] == left_out_note(config)


def test_a_tower_of_another_kind_is_named_and_not_counted() -> None:
    config = {**config_of("llava"), "vision_config": {"model_type": "somebodys_tower"}, "audio_config": {}}
    vision, audio = left_out_note(config)
    assert "vision tower (somebodys_tower) is left out, and its parameters are not counted" in vision
    assert "audio tower is left out, and its parameters are not counted" in audio
    broken = {**config_of("llava, with two feature layers"), "vision_config": {**VIT, "hidden_size": "wide"}}
    assert "not counted" in left_out_note(broken)[0]


def test_what_talks_is_left_out_and_what_thinks_is_whole() -> None:
    thinker = config_of("qwen2_5_omni_thinker")
    config = {"model_type": "qwen2_5_omni", "thinker_config": thinker, "talker_config": {"hidden_size": 32}}
    assert count_parameters(config) == count_parameters(thinker)
    (note,) = left_out_note(config)
    assert note.startswith("the thinker alone")


def test_gemma_3n_is_what_transformers_makes_with_timm() -> None:
    """The classes' defaults, E4B's, in transformers 5.23 with timm 1.0.31 on the meta device."""
    config: dict[str, Any] = {"model_type": "gemma3n", "text_config": {}, "vision_config": {}, "audio_config": {}}
    assert count_parameters(config).total == 7_818_517_072
    words = {"images": 1, "image_size": [500, 700], "gradient_checkpointing": True}
    said = memory_answer({"config": config, "method": "full", "recipe": words})["estimates"][0]["assumptions"]
    assert any("does not reach the vision tower" in line for line in said)
    other = {**config, "vision_config": {"model_type": "gemma3n_vision", "architecture": "mobilenetv5_base"}}
    assert "left out" in left_out_note(other)[0]


def test_idefics_2_says_that_pictures_are_not_split() -> None:
    words = {"images": 1, "image_size": [500, 700], "sequence_length": 512}
    said = memory_answer({"config": config_of("idefics2"), "method": "full", "recipe": words})["estimates"][0]
    assert any("do_image_splitting" in line for line in said["assumptions"])
    assert any("5 tokens of the sequence" in line for line in said["assumptions"])


@pytest.mark.parametrize(
    "field, value",
    [("insert_layer_id", 3), ("merge_kernel_size", [2, 4]), ("merger_times", 2), ("downsample_mode", "8x")],
)
def test_a_merger_that_minicpm_v_has_not_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=field) as problem:
        count_parameters({**config_of("minicpmv4_6"), field: value})
    assert problem.value.field == f"config.{field}"


def test_text_fields_beside_the_tower_are_understood() -> None:
    flat = {"model_type": "qwen2_vl", **TEXT, "tie_word_embeddings": True, "vision_config": {"depth": 1}}
    nested = {
        "model_type": "qwen2_vl", "text_config": TEXT, "tie_word_embeddings": True, "vision_config": {"depth": 1},
    }  # fmt: skip
    assert count_parameters(flat) == count_parameters(nested)
    assert count_parameters(flat).exact


def test_cross_attention_to_pictures_is_not_guessed() -> None:
    text = {**TEXT, "model_type": "somebodys_text", "cross_attention_layers": [1]}
    with pytest.raises(UnsupportedArchitecture, match="somebodys_text"):
        count_parameters({"model_type": "somebodys_model", "text_config": text, "vision_config": {}})


def test_parts_of_a_tower_are_counted_with_the_places_that_they_work_on() -> None:
    recipe = Recipe.from_mapping({"images": 1, "image_size": [1000, 700], "sequence_length": 1024})
    step, m3, ernie = (build(config_of(name)) for name in ("step3p7", "minimax_m3_vl", "ernie4_5_vl_moe"))

    def uses(root: Root, name: str) -> float:
        return root.uses_per_token(name, recipe) * 1024

    found = [uses(step, f"model.vision_model.{name}") for name in ("layers.0.mlp.fc1", "downsampler1", "downsampler2")]
    assert found == [52**2 + 4 * 36**2, 26**2 + 4 * 18**2, 13**2 + 4 * 9**2]  # a picture and four crops
    assert uses(m3, "model.multi_modal_projector.linear_1") == 4 * uses(
        m3, "model.multi_modal_projector.merge_linear_1"
    )
    kinds = [uses(ernie, f"model.language_model.layers.1.mlp.{kind}_moe.experts") for kind in ("text", "vision")]
    assert sum(kinds) == 1024 and kinds[1] == 36 * 25 + 2


@pytest.mark.parametrize("name", CASES)
def test_a_size_of_pictures_is_a_word_where_it_changes_something(name):
    media = build(config_of(name)).media
    if media is None:
        return
    sizes = ((100, 1500), (300, 300), (900, 640), (1600, 1600))
    found = {media.pictures(Recipe.from_mapping({"images": 1, "image_size": list(size)})) for size in sizes}
    assert ("image_size" in media.words) == (len(found) > 1)

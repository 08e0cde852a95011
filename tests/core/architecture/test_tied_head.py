"""Which config of a multimodal model says whether its head is tied: every combination, as transformers builds it."""

from __future__ import annotations

from typing import Any

import pytest
from core.architecture.multimodal_cases import TEXT, VIT
from core.architecture.test_multimodal import CASES, VL
from core.architecture.test_multimodal_more import CASES as MORE
from core.architecture.test_multimodal_more import GOT
from core.architecture.transformers_models import total

from loralens.core.architecture.media_types import MEDIA
from loralens.core.architecture.multimodal import left_out_note
from loralens.core.architecture.registry import build, count_parameters, head_is_tied
from loralens.lab.trace.build import read_config

WORD = "tie_word_embeddings"
CLIP = {**VIT, "model_type": "clip_vision_model", "image_size": 56}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MODELS: dict[str, dict[str, Any]] = {
    **{name: {"model_type": name, **case} for name, case in (CASES | MORE).items() if "," not in name},
    "internvl": {"model_type": "internvl", "text_config": {**TEXT, "model_type": "qwen2"}, "vision_config": VIT},
    "qwen3_vl_moe": {
        "model_type": "qwen3_vl_moe",
        "text_config": {**TEXT, "model_type": "qwen3_vl_moe_text", "head_dim": 32, **EXPERTS},
        "vision_config": {**VL, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64},
    },
    "qwen3_5_moe": {
        "model_type": "qwen3_5_moe",
        "text_config": {
            **TEXT,
            "model_type": "qwen3_5_moe_text",
            "shared_expert_intermediate_size": 24,
            **EXPERTS,
        },
        "vision_config": {**VL, "num_position_embeddings": 64},
    },
    "voxtral": {
        "model_type": "voxtral",
        "text_config": {**TEXT, "model_type": "llama", "head_dim": 32},
        "audio_config": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192},
    },
    **{
        f"{outer} with {inner}": {
            "model_type": outer,
            "text_config": {**TEXT, "model_type": inner, "head_dim": 32},
            "vision_config": CLIP if outer.startswith("llava") else {**VIT, "image_size": 56},
        }
        for outer in ("llava", "llava_next", "idefics3")
        for inner in ("llama", "gemma")
    },
}
ELSEWHERE = {
    "gemma3n", "diffusion_gemma",  # timm, and a class that no auto class names
    "qwen2_5_omni", "qwen3_omni_moe",  # whose thinker is here
    "interns1", "kimi_vl", "dots_ocr",  # code on the Hub
    "phi4_multimodal",  # flat
}  # fmt: skip
FREE = [(outer, inner) for outer in (None, True, False) for inner in (None, True, False)]


def said(config: dict[str, Any], outer: bool | None, inner: bool | None) -> dict[str, Any]:
    """With both words, or without them."""
    text = {name: value for name, value in config["text_config"].items() if name != WORD}
    whole = {name: value for name, value in config.items() if name != WORD}
    whole["text_config"] = text | ({} if inner is None else {WORD: inner})
    return whole | ({} if outer is None else {WORD: outer})


def real(config: dict[str, Any]) -> Any:
    import torch
    import transformers

    read = transformers.AutoConfig.for_model(**config)
    makers = (
        transformers.AutoModelForImageTextToText,
        transformers.AutoModelForCausalLM,
        transformers.AutoModelForSeq2SeqLM,
    )
    with torch.device("meta"):
        return next(maker for maker in makers if type(read) in maker._model_mapping).from_config(read)


def test_every_whole_model_is_among_them() -> None:
    assert {config["model_type"] for config in MODELS.values()} | ELSEWHERE == set(MEDIA)


@pytest.mark.parametrize("name", [name for name, config in MODELS.items() if "text_config" in config])
def test_each_combination_counts_as_transformers_builds_it(name: str) -> None:
    for outer, inner in FREE:
        config = said(MODELS[name], outer, inner)
        assert count_parameters(config).total == total(real(said(MODELS[name], outer, inner))), (outer, inner)


@pytest.mark.parametrize("name", ["mistral3", "gemma3", "qwen2_5_vl", "idefics3", "deepseek_vl", "lfm2_vl", "llava"])
def test_before_transformers_5_the_text_decided(name: str) -> None:
    """Built with transformers 4.57.6: tied as the text's config says, and by default Gemma's and LFM2's alone."""
    usual = name in ("gemma3", "lfm2_vl")
    for outer, inner in FREE:
        found = build(said(MODELS[name], outer, inner), (4, 57)).tied
        assert found == (usual if inner is None else inner), (outer, inner)


@pytest.mark.parametrize("name", ["mistral3", "internvl"])
def test_a_file_that_transformers_4_wrote_keeps_its_own_head(name: str) -> None:
    silent = said(MODELS[name], None, None)
    old, new = ({**silent, "transformers_version": version} for version in ("4.50.0.dev0", "5.2.0"))
    table = TEXT["vocab_size"] * TEXT["hidden_size"]
    assert count_parameters(old).total == count_parameters(new).total + table
    assert count_parameters(new) == count_parameters(silent)
    assert read_config(old).tie_word_embeddings is False and read_config(new).tie_word_embeddings is True
    assert head_is_tied({**old, WORD: True})


@pytest.mark.parametrize(
    "name, inner, words",
    [
        ("mistral3", None, "5 ties the head to the embedding, transformers 4 gives the head weights of its own"),
        ("idefics3", True, "5 gives the head weights of its own, transformers 4 ties the head to the embedding"),
        ("gemma3", None, None),
        ("idefics3", None, None),
        ("llama4", True, None),
    ],
)
def test_what_the_file_does_not_say_is_said(name: str, inner: bool | None, words: str | None) -> None:
    def notes(config: dict[str, Any]) -> list[str]:
        return [note for note in left_out_note(config) if WORD in note]

    silent = said(MODELS[name], None, inner)
    found = notes(silent)
    assert [words in note and "28,800 parameters" in note for note in found] == ([True] if words else [])
    assert not notes({**silent, WORD: False}) and not notes({**silent, "transformers_version": "5.1.0"})


def test_got_ocr_2_has_its_own_sizes_where_the_text_fields_stand_outside() -> None:
    vision = {**GOT["vision_config"], "model_type": ""}
    for flat in ({}, {"num_hidden_layers": 3, "vocab_size": 1000}, {"hidden_size": 1024}, {WORD: False}):
        config = {"model_type": "got_ocr2", **flat, "vision_config": vision}
        counted = count_parameters(config)
        assert counted.exact and counted.total == total(real({**config, "vision_config": GOT["vision_config"]}))
        unread = [note for note in left_out_note(config) if "not read" in note]
        assert bool(unread) == ("vocab_size" in flat)
        assert not unread or "num_hidden_layers=24, vocab_size=151860 instead" in unread[0]


@pytest.mark.parametrize("name", ["qwen2_vl", "paddleocr_vl"])
def test_the_word_beside_flat_text_fields_is_the_outer_one(name: str) -> None:
    inside = MODELS[name]
    for outer in (None, True, False):
        flat = {"model_type": name, **inside["text_config"], "vision_config": inside["vision_config"]}
        flat = {**flat, "model_type": name} | ({} if outer is None else {WORD: outer})
        assert count_parameters(flat).total == total(real(dict(flat))), outer

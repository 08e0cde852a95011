"""Multimodal models whose code lives on the Hub: what is refused, what is said of it, and published sizes."""

from __future__ import annotations

from typing import Any

import pytest

from loralens.core import catalogue
from loralens.core.answer.answers import memory_answer
from loralens.core.answer.estimate import estimate_model
from loralens.core.architecture.families.kimi_vl import fitted
from loralens.core.architecture.registry import count_parameters
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.lab.trace.grid_media import media_config
from loralens.lab.trace.grid_media_more import CONFIGS

# published: the bytes of the checkpoints' files in GB, two for a parameter (internlm/Intern-S1-mini, and
# moonshotai/Kimi-VL-A3B-Thinking: 4.99 GB, five of 5 GB, 2.84 GB; a fine-tuned dots.ocr: 4.99 and 1.09 GB)
TOTALS = {"intern-s1-mini": 17.1, "kimi-vl-a3b": 32.8, "dots.ocr": 6.1}


def said(config: Any, **recipe: Any) -> list[str]:
    found = memory_answer({"config": config, "method": "lora", "recipe": recipe}, verdicts=False)
    return found["estimates"][0]["assumptions"]


@pytest.mark.parametrize("name", TOTALS)
def test_the_whole_model_is_as_large_as_its_checkpoint(name: str) -> None:
    config = CONFIGS.get(name) or catalogue.model(name).config
    assert round(2 * count_parameters(config).total / 1e9, 1) == TOTALS[name]


def test_branches_that_are_dropped_are_refused() -> None:
    config = media_config("intern-s1-mini", 2, 2)
    dropping = {**config, "vision_config": {**config["vision_config"], "drop_path_rate": 0.1}}
    with pytest.raises(UnsupportedArchitecture, match="drops branches") as problem:
        count_parameters(dropping)
    assert problem.value.field == "config.vision_config.drop_path_rate"


@pytest.mark.parametrize(
    "name, whose",
    [
        ("intern-s1-mini", "InternVL"),
        ("yi-vl-6b", "LLaMA-Factory"),
        ("kimi-vl-narrow", "DeepSeek-V3"),
        ("dots-ocr", "Qwen2"),
    ],
)
def test_whose_code_is_walked_is_said_with_pictures_and_without(name: str, whose: str) -> None:
    config = media_config(name, 2, 2)
    for words in ({}, {"images": 1, "image_size": [448, 448], "sequence_length": 2048}):
        assert any(whose in line for line in said(config, **words))


def test_yi_s_projector_has_two_norms_more_than_llava_s() -> None:
    config = media_config("yi-vl-6b", 2, 2)
    plain = {name: value for name, value in config.items() if name != "is_yi_vl_derived_model"}
    assert count_parameters(config).total - count_parameters(plain).total == 2 * 2 * 4096


@pytest.mark.parametrize(
    "size, made",
    [((364, 500), (364, 504)), ((20, 20), (28, 28)), ((896, 896), (896, 896)), ((2000, 3000), (756, 1120))],
)
def test_kimi_vl_s_pictures_are_made_smaller_and_padded_never_larger(
    size: tuple[int, int], made: tuple[int, int]
) -> None:
    """By hand, after `rescale`: 142 x 214 patches are more than 4,096, so both sides shrink by their ratio's root."""
    assert fitted(*size, 14, 2) == made


def test_a_picture_with_more_patches_on_a_side_than_kimi_vl_has_rotations_for_is_refused() -> None:
    with pytest.raises(InvalidInput, match="refuses 512 and more"):
        fitted(20, 8_000, 14, 2)


def test_kimi_vl_s_tower_by_sdpa_has_every_score_and_a_plan_for_one_batch() -> None:
    """Its query has three dimensions, which no fused kernel takes."""
    config = media_config("kimi-vl-narrow", 2, 2)
    words = {"images": 1, "image_size": [896, 896], "sequence_length": 2048, "gradient_checkpointing": False}

    def made(**more: Any) -> Any:
        recipe = Recipe.from_mapping({**words, **more})
        return estimate_model(resolve(config=config), "full", recipe)

    scores = 16 * 4096**2 * 4  # of one layer, in float32
    assert made().allocated_bytes - made(attention="flash").allocated_bytes > 2 * scores
    validity = made().plan.validity
    assert validity.covers(1, 3000, 8) and not validity.covers(2, 2048, 8)


@pytest.mark.parametrize("kernel, known", [("flash_attention_2", True), ("sdpa", True), ("eager", False)])
def test_dots_ocr_s_tower_has_the_attention_of_its_config(kernel: str, known: bool) -> None:
    config = media_config("dots-ocr", 2, 2)
    config = {**config, "vision_config": {**config["vision_config"], "attn_implementation": kernel}}
    if known:
        assert count_parameters(config).exact
        return
    with pytest.raises(UnsupportedArchitecture, match="eager is not modelled") as problem:
        count_parameters(config)
    assert problem.value.field == "config.vision_config.attn_implementation"


def test_kimi_vl_s_experts_are_packed_where_they_are_linear_layers_as_in_its_own_code() -> None:
    words = {"images": 1, "image_size": [896, 896], "sequence_length": 2048, "attention": "flash"}
    asked = {"model": "kimi-vl-a3b", "method": "qlora", "recipe": {**words, "stack": {"transformers": "4.57"}}}
    (apart,) = memory_answer(asked, verdicts=False)["estimates"]
    (stacked,) = memory_answer({**asked, "recipe": words}, verdicts=False)["estimates"]
    assert apart["breakdown"]["weights_bytes"] < 11 * 2**30 < 50 * 2**30 < stacked["breakdown"]["weights_bytes"]
    assert any("stack.transformers=4.57 counts them" in line for line in stacked["assumptions"])

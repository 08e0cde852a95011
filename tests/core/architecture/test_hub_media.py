"""Multimodal models whose code lives on the Hub: what is refused, what is said of it, and published sizes."""

from __future__ import annotations

from typing import Any

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.architecture.registry import count_parameters
from loralens.core.errors import UnsupportedArchitecture
from loralens.lab.trace.grid_media import media_config
from loralens.lab.trace.grid_media_more import CONFIGS

# published: the bytes of the checkpoints' files, two for a parameter (internlm/Intern-S1-mini: 17.1 GB on the Hub)
TOTALS = {"intern-s1-mini": 17.1}


def said(config: Any, **recipe: Any) -> list[str]:
    found = memory_answer({"config": config, "method": "lora", "recipe": recipe}, verdicts=False)
    return found["estimates"][0]["assumptions"]


@pytest.mark.parametrize("name", TOTALS)
def test_the_whole_model_is_as_large_as_its_checkpoint(name: str) -> None:
    assert round(2 * count_parameters(CONFIGS[name]).total / 1e9, 1) == TOTALS[name]


def test_branches_that_are_dropped_are_refused() -> None:
    config = media_config("intern-s1-mini", 2, 2)
    dropping = {**config, "vision_config": {**config["vision_config"], "drop_path_rate": 0.1}}
    with pytest.raises(UnsupportedArchitecture, match="drops branches") as problem:
        count_parameters(dropping)
    assert problem.value.field == "config.vision_config.drop_path_rate"


@pytest.mark.parametrize("name, whose", [("intern-s1-mini", "InternVL"), ("yi-vl-6b", "LLaMA-Factory")])
def test_whose_code_is_walked_is_said_with_pictures_and_without(name: str, whose: str) -> None:
    config = media_config(name, 2, 2)
    for words in ({}, {"images": 1, "image_size": [448, 448], "sequence_length": 2048}):
        assert any(whose in line for line in said(config, **words))


def test_yi_s_projector_has_two_norms_more_than_llava_s() -> None:
    config = media_config("yi-vl-6b", 2, 2)
    plain = {name: value for name, value in config.items() if name != "is_yi_vl_derived_model"}
    assert count_parameters(config).total - count_parameters(plain).total == 2 * 2 * 4096

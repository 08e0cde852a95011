from __future__ import annotations

import pytest

from loralens.core import catalogue
from loralens.core.answer.listings import families_answer, gpu_answer, gpus_answer, model_answer, models_answer
from loralens.core.architecture.registry import MEDIA
from loralens.core.errors import UnknownGpu, UnknownModel


def test_lists_are_complete_and_short():
    assert len(models_answer()["models"]) == len(catalogue.models())
    assert len(gpus_answer()["gpus"]) == len(catalogue.gpus())
    assert all("config" not in row for row in models_answer()["models"])


def test_a_family_is_a_part():
    families = {entry.family for entry in catalogue.models()}
    assert sum(len(models_answer(family)["models"]) for family in families) == len(catalogue.models())


def test_one_row_is_the_catalogues():
    assert model_answer("7B") == catalogue.model("7B").to_dict()
    assert gpu_answer("rtx-4090") == catalogue.gpu("rtx-4090").to_dict()


def test_unknown_names():
    with pytest.raises(UnknownModel):
        model_answer("8X")
    with pytest.raises(UnknownGpu):
        gpu_answer("abacus")


def test_families_are_listed_with_what_is_understood_of_them():
    rows = {row["model_type"]: row["memory"] for row in families_answer()["families"]}
    assert list(rows) == sorted(rows)
    assert rows["llama"] and not rows["recurrent_gemma"]
    named = {(entry.config.get("text_config") or entry.config)["model_type"] for entry in catalogue.models()}
    assert named - MEDIA.keys() <= set(rows)

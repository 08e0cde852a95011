"""The catalogue as answers: what `GET /api/models`, `GET /api/gpus` and their CLI verbs say."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from loralens.core import catalogue
from loralens.core.architecture.registry import families

if TYPE_CHECKING:
    from loralens.core.answer.listing_shapes import FamiliesAnswer, GpusAnswer, ModelsAnswer
    from loralens.core.catalogue.shapes import GpuRow, ModelDetail, ModelRow


def models_answer(family: str | None = None) -> ModelsAnswer:
    """All models, or those of one family (`model_type`), without their configs."""
    entries = [entry for entry in catalogue.models() if family is None or entry.family == family]
    return {"models": [_without_config(entry.to_dict()) for entry in entries]}


def model_answer(name: str) -> ModelDetail:
    """One model with its config, and how its name was read where the catalogue does not have it.

    Raises:
        UnknownModel: see `catalogue.reading`.
    """
    found = catalogue.reading(name)
    row = catalogue.entry(found.id).to_dict()
    if found.notes:
        row["read_as"] = list(found.notes)
    return row


def families_answer() -> FamiliesAnswer:
    """Every `model_type` that is understood, and whether its training step is walked or its parameters only counted."""
    return {"families": [{"model_type": name, "memory": walked} for name, walked in families().items()]}


def gpus_answer() -> GpusAnswer:
    """All GPUs of the catalogue."""
    return {"gpus": [entry.to_dict() for entry in catalogue.gpus()]}


def gpu_answer(name: str) -> GpuRow:
    """One GPU.

    Raises:
        UnknownGpu: nothing in the catalogue has this name.
    """
    return catalogue.gpu(name).to_dict()


def _without_config(row: ModelDetail) -> ModelRow:
    return cast("ModelRow", {name: value for name, value in row.items() if name != "config"})

"""The catalogue's answers, as JSON. The API documents these very types."""

from __future__ import annotations

from typing import Annotated, TypedDict

from loralens.core.catalogue.shapes import GpuRow, ModelRow


class ModelsAnswer(TypedDict):
    """Answer of /api/models."""

    models: list[ModelRow]


class FamilyRow(TypedDict):
    """One model type."""

    model_type: str
    memory: Annotated[bool, "True: the training step is modelled. False: parameters are counted alone."]


class FamiliesAnswer(TypedDict):
    """Answer of /api/families."""

    families: list[FamilyRow]


class GpusAnswer(TypedDict):
    """Answer of /api/gpus."""

    gpus: list[GpuRow]

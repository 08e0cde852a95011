"""`/api/models`: the models that are known by name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from loralens.api.answers import respond
from loralens.api.problems import documented
from loralens.api.schemas import FamiliesAnswer, ModelDetail, ModelsAnswer
from loralens.core.listings import families_answer, model_answer, models_answer

router = APIRouter(tags=["catalogue"])
Family = Annotated[str | None, Query(max_length=100, description="Only this `model_type`, such as llama.")]


@router.get("/models", summary="All models of the catalogue", response_model=ModelsAnswer, responses=documented(422))
def models(family: Family = None) -> Response:
    """Each row with its source. An unknown family has no models."""
    return respond(models_answer(family))


@router.get("/models/{id:path}", summary="One model", response_model=ModelDetail, responses=documented(404))
def model(id: str) -> Response:
    """By id, alias or Hugging Face id, with the architecture keys of its config.json."""
    return respond(model_answer(id))


@router.get("/families", summary="All model types", response_model=FamiliesAnswer)
def families() -> Response:
    """What a config.json may be of, with or without a modelled training step."""
    return respond(families_answer())

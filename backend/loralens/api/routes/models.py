"""`/api/models`: the models that are known by name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from loralens.api.answers import respond
from loralens.api.bodies import JsonBody
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.answer.listing_shapes import FamiliesAnswer, ModelsAnswer
from loralens.core.answer.listings import families_answer, model_answer, models_answer
from loralens.core.catalogue.shapes import ModelDetail
from loralens.endpoints.reading import read_named
from loralens.huggingface.resolve import Resolver
from loralens.huggingface.shapes import ResolvedModel

router = APIRouter(tags=["catalogue"])
Family = Annotated[str | None, Query(max_length=100, description="Only this `model_type`, such as llama.")]


@router.get(
    "/models", summary="All models of the catalogue", response_model=shape(ModelsAnswer), responses=documented(422)
)
def models(family: Family = None) -> Response:
    """Each row with its source. An unknown family has no models."""
    return respond(models_answer(family))


@router.get("/models/{id:path}", summary="One model", response_model=shape(ModelDetail), responses=documented(404))
def model(id: str) -> Response:
    """By id, alias or Hugging Face id, with the architecture keys of its config.json."""
    return respond(model_answer(id))


@router.get("/families", summary="All model types", response_model=shape(FamiliesAnswer))
def families() -> Response:
    """What a config.json may be of, with or without a modelled training step."""
    return respond(families_answer())


@router.post(
    "/models/resolve",
    summary="Find a model by the name somebody pasted",
    response_model=shape(ResolvedModel),
    responses=documented(400, 403, 404, 413, 415, 422, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "model": {"type": "string", "description": "owner/name, or the address of its page."},
                            "from_hub": {
                                "type": "boolean",
                                "default": False,
                                "description": "Ask the Hugging Face Hub if it is found nowhere else.",
                            },
                        },
                        "required": ["model"],
                        "additionalProperties": False,
                    },
                    "example": {"model": "Qwen/Qwen2.5-7B"},
                }
            },
        }
    },
)
async def resolve(request: Request, body: JsonBody) -> Response:
    """Catalogue, local folders, what was fetched before; the Hub itself only with `from_hub`, within a deadline."""
    model, from_hub = read_named(body)
    settings = request.app.state.settings
    resolver = Resolver(settings.state_directory(), settings.models_dir, settings.hub_address(), settings.hub_seconds)
    return respond(await resolver.resolve(model, from_hub))

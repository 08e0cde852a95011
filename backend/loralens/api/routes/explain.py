"""`/api/explain`: which tensor an out-of-memory message is about."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonObject
from loralens.api.compute import computed
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.trainers.shapes import ExplainAnswer

router = APIRouter(tags=["planner"])
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "description": "The error as PyTorch prints it."},
                    "model": {"type": ["string", "null"]},
                    "config": {"type": ["object", "null"]},
                    "method": {"type": ["string", "null"]},
                    "recipe": {"type": ["object", "null"]},
                    "files": {
                        "type": ["object", "null"],
                        "additionalProperties": {"type": "string"},
                        "description": "In place of model and recipe: the trainer's file, as in /api/check.",
                    },
                    "gpus": {"type": ["integer", "null"]},
                    "stack": {"type": ["object", "null"]},
                },
                "required": ["text"],
                "additionalProperties": False,
            },
            "example": {
                "text": "CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 7.66 GiB",
                "model": "qwen2.5-0.5b",
                "method": "lora",
            },
        }
    },
}


@router.post(
    "/explain",
    summary="Which tensor an out-of-memory message is about",
    response_model=shape(ExplainAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": _BODY},
)
async def explain(request: Request, body: JsonObject) -> Response:
    """The tensors of that size, in which phase, whether it is need or fragmentation, and what would help."""
    return await computed(request, "explain", body)

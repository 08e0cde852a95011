"""`/api/check`: a trainer's own file, judged."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody
from loralens.api.compute import computed
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.trainers.shapes import CheckAnswer

router = APIRouter(tags=["planner"])
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "files": {
                        "type": "object",
                        "additionalProperties": {"type": "string"},
                        "description": "File name to text: the training config, and the files that it names.",
                    },
                    "gpu": {
                        "type": ["string", "null"],
                        "description": "Name, memory or description of a GPU to check.",
                    },
                    "gpus": {
                        "type": ["integer", "null"],
                        "description": "How many share the work, where the file does not say.",
                    },
                    "model": {
                        "type": ["string", "null"],
                        "description": "The model, where the file's name for it is not known.",
                    },
                    "config": {"type": ["object", "null"], "description": "The model's config.json."},
                    "stack": {"type": ["object", "null"], "description": "Library versions, as in a recipe."},
                },
                "required": ["files"],
                "additionalProperties": False,
            },
            "example": {
                "files": {
                    "train.yaml": "base_model: Qwen/Qwen2.5-7B\nadapter: qlora\nlora_r: 16\nmicro_batch_size: 2\n"
                },
                "gpu": "rtx-4090",
            },
        }
    },
}


@router.post(
    "/check",
    summary="A trainer's own file, judged",
    response_model=shape(CheckAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": _BODY},
)
async def check(request: Request, body: JsonBody) -> Response:
    """Verdict, peak, the lines that matter most, and every key that was not understood, by name."""
    return await computed(request, "check", body)

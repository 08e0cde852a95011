"""`/api/explain`: which tensor an out-of-memory message is about."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody
from loralens.api.compute import computed, of_snapshot
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.api.snapshot_form import sent_snapshot
from loralens.api.uploads import MAX_UPLOAD_BYTES
from loralens.trainers.shapes import ExplainAnswer, SnapshotAnswer
from loralens.trainers.snapshot import SET_UP

router = APIRouter(tags=["planner"])
_BODY: dict[str, object] = {
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


_FORM: dict[str, object] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "snapshot": {
                        "type": "string",
                        "format": "binary",
                        "description": "The file of torch.cuda.memory._dump_snapshot: at most LORALENS_MAX_SNAPSHOT_BYTES.",
                    },
                    "set_up": {
                        "type": "string",
                        "description": f"JSON, as POST /api/explain takes it: {', '.join(SET_UP)}.",
                    },
                },
                "required": ["snapshot"],
                "additionalProperties": False,
            }
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
async def explain(request: Request, body: JsonBody) -> Response:
    """The tensors of that size, in which phase, whether it is need or fragmentation, and what would help."""
    return await computed(request, "explain", body)


@router.post(
    "/explain/snapshot",
    summary="What is alive in a memory snapshot",
    response_model=shape(SnapshotAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": _FORM},
    max_body_size=MAX_UPLOAD_BYTES,
)
async def explain_snapshot(request: Request) -> Response:
    """Each live block matched to a term of the step. Nothing in the file is run: it may hold lists, dicts, numbers and text.

    What the memory history holds is passed over. The file is kept only until this is answered.
    """
    async with sent_snapshot(request) as (path, set_up):
        return await of_snapshot(request, path, set_up)

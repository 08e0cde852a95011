"""`POST /api/serving`: memory of serving one base model with many adapters."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody
from loralens.api.compute import computed
from loralens.api.openapi import or_null
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.answer.serving_shapes import ServingAnswer

router = APIRouter(tags=["adapters"])


@router.post(
    "/serving",
    summary="Memory of serving one base with many adapters",
    response_model=shape(ServingAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "model": or_null({"type": "string"}),
                            "config": or_null({"type": "object"}),
                            "adapters": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "properties": {"rank": {"type": "integer"}, "count": {"type": "integer"}},
                                },
                            },
                            "target_modules": {
                                "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": ["string", "null"]}]
                            },
                            "weights_dtype": {"type": "string"},
                            "quantization": {"type": ["string", "null"]},
                            "adapter_dtype": {"type": "string"},
                            "kv_dtype": {"type": "string"},
                            "batch": {"type": "integer"},
                            "sequence_length": {"type": "integer"},
                            "padded": {"type": "boolean"},
                            "gpu": {"type": ["string", "null"]},
                        },
                    },
                    "example": {
                        "model": "7B",
                        "adapters": [{"rank": 8, "count": 6}],
                        "batch": 8,
                        "sequence_length": 4096,
                    },
                }
            },
        }
    },
)
async def serving(request: Request, body: JsonBody) -> Response:
    """Base, adapters of mixed ranks and KV cache, against a full model for each task; how many adapters fit where."""
    return await computed(request, "serving", body)

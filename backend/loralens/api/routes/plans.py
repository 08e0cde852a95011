"""`/api/plans`: how to share a step out among several GPUs of one kind."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody
from loralens.api.compute import computed
from loralens.api.openapi import request_body
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.question.kinds import Schema
from loralens.planner.plans import MOST_GPUS
from loralens.planner.shapes import PlansAnswer

router = APIRouter(tags=["planner"])


def _request_body() -> Schema:
    body = request_body()
    content = body["content"]["application/json"]
    count = {"type": "integer", "minimum": 1, "maximum": MOST_GPUS}
    content["schema"]["properties"] |= {
        "gpus": count | {"description": "GPUs of that kind, all together; 8 where nothing is said."},
        "nodes": count | {"description": "Machines that they are in; 1 where nothing is said."},
    }
    content["schema"]["required"] = ["gpu"]
    content["example"] = {"model": "70B", "method": "full", "gpu": "h100-sxm", "gpus": 32, "nodes": 4}
    return body


@router.post(
    "/plans",
    summary="Plans for several GPUs, with configs to paste",
    response_model=shape(PlansAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": _request_body()},
)
async def plans(request: Request, body: JsonBody) -> Response:
    """The plans that no other beats in both memory and time, fastest first; the nearest one where none fits."""
    return await computed(request, "plans", body)

"""`/api/sweep`: the peak over a grid of batch sizes, lengths and ranks."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody
from loralens.api.compute import computed
from loralens.api.openapi import request_body
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.question.kinds import Schema
from loralens.core.tape.size import VARIABLES
from loralens.planner.shapes import SweepAnswer
from loralens.planner.sweep import MAX_POINTS

router = APIRouter(tags=["planner"])


def _request_body() -> Schema:
    body = request_body()
    content = body["content"]["application/json"]
    values = {"type": "array", "items": {"type": "integer"}}
    content["schema"]["properties"]["sweep"] = {
        "type": "object",
        "description": f"Values per variable; at most {MAX_POINTS:,} points in all.",
        "properties": dict.fromkeys(VARIABLES, values),
        "additionalProperties": False,
    }
    content["schema"]["required"] = ["sweep"]
    content["example"] = {
        "model": "7B",
        "method": "lora",
        "sweep": {"rank": [4, 8, 16], "sequence_length": [512, 2048]},
    }
    return body


@router.post(
    "/sweep",
    summary="Peaks over a grid",
    response_model=shape(SweepAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": _request_body()},
)
async def sweep(request: Request, body: JsonBody) -> Response:
    """The same numbers as single requests, for a whole grid at once."""
    return await computed(request, "sweep", body)

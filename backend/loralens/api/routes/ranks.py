"""`POST /api/ranks`: what a published comparison says of a rank's quality."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody
from loralens.api.compute import computed
from loralens.api.openapi import request_body
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.question.kinds import Schema
from loralens.planner.rank_shapes import RankAnswer

router = APIRouter(tags=["planner"])


def _request_body() -> Schema:
    body = request_body()
    content = body["content"]["application/json"]
    del content["schema"]["properties"]["gpu"]  # what a rank is worth does not hang on the card
    content["example"] = {"model": "llama-3.2-3b", "method": "lora", "recipe": {"lora": {"rank": 32}}}
    return body


@router.post(
    "/ranks",
    summary="What is known of a rank's quality",
    response_model=shape(RankAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": _request_body()},
)
async def ranks(request: Request, body: JsonBody) -> Response:
    """PEFT's own runs of its methods, with their limits; a setting that was not run is unknown."""
    return await computed(request, "ranks", body)

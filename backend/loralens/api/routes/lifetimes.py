"""`POST /api/lifetimes`: every tensor of a step, from its birth to its release."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody
from loralens.api.compute import computed
from loralens.api.openapi import request_body
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.answer.lifetime_shapes import LifetimesAnswer

router = APIRouter(tags=["memory"])


@router.post(
    "/lifetimes",
    summary="Every tensor of a step: name, bytes, birth and release",
    response_model=shape(LifetimesAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": request_body()},
)
async def lifetimes(request: Request, body: JsonBody) -> Response:
    """The ledger behind /api/memory, tensor by tensor, every layer walked: its largest sum is that answer's peak."""
    return await computed(request, "lifetimes", body)

"""`/api/plan`: the coefficients with which a client computes answers itself."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody, Query
from loralens.api.compute import computed
from loralens.api.openapi import query_parameters, request_body
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.answer.plan_shapes import PlanAnswer

router = APIRouter(tags=["memory"])


@router.get(
    "/plan",
    summary="Coefficients of the memory formula",
    response_model=shape(PlanAnswer),
    responses=documented(404, 422, 429, 503),
    openapi_extra={"parameters": query_parameters()},
)
async def plan(request: Request, query: Query) -> Response:
    """Polynomials in batch, length and rank: a slider moves without a request."""
    return await computed(request, "plan", query)


@router.post(
    "/plan",
    summary="Coefficients of the memory formula, nested recipe or your own config.json",
    response_model=shape(PlanAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": request_body()},
)
async def plan_of_body(request: Request, body: JsonBody) -> Response:
    """The same answer for a recipe in JSON; `config` takes a config.json in place of a model name."""
    return await computed(request, "plan", body)

"""`/api/parameters`: exact counts, tensor by tensor."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody, Query
from loralens.api.compute import computed
from loralens.api.openapi import query_parameters, request_body
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.answer.shapes import ParametersAnswer

router = APIRouter(tags=["parameters"])


@router.get(
    "/parameters",
    summary="Parameter counts",
    response_model=shape(ParametersAnswer),
    responses=documented(404, 422, 429, 503),
    openapi_extra={"parameters": query_parameters()},
)
async def parameters(request: Request, query: Query) -> Response:
    """Total and trainable counts, layers of a kind in one row, and where adapters can go."""
    return await computed(request, "parameters", query)


@router.post(
    "/parameters",
    summary="Parameter counts, nested recipe or your own config.json",
    response_model=shape(ParametersAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": request_body()},
)
async def parameters_of_body(request: Request, body: JsonBody) -> Response:
    """The same answer for a recipe in JSON; `config` takes a config.json in place of a model name."""
    return await computed(request, "parameters", body)

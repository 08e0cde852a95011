"""`/api/memory`: what one training step needs, byte by byte."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody, Query
from loralens.api.compute import computed
from loralens.api.openapi import allocator_parameter, query_parameters, request_body, with_allocator
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.answer.shapes import MemoryAnswer

router = APIRouter(tags=["memory"])


@router.get(
    "/memory",
    summary="Memory of one training step",
    response_model=shape(MemoryAnswer),
    responses=documented(404, 422, 429, 503),
    openapi_extra={"parameters": [*query_parameters(), allocator_parameter()]},
)
async def memory(request: Request, query: Query) -> Response:
    """Peak, phases, breakdown and every term with its formula, for each method asked for."""
    return await computed(request, "memory", query)


@router.post(
    "/memory",
    summary="Memory of one training step, nested recipe or your own config.json",
    response_model=shape(MemoryAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": with_allocator(request_body())},
)
async def memory_of_body(request: Request, body: JsonBody) -> Response:
    """The same answer for a recipe in JSON; `config` takes a config.json in place of a model name."""
    return await computed(request, "memory", body)

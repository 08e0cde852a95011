"""`/api/memory`: what one training step needs, byte by byte."""

from __future__ import annotations

from fastapi import APIRouter, Response

from loralens.api.answers import respond
from loralens.api.bodies import JsonObject, Query
from loralens.api.openapi import allocator_parameter, query_parameters, request_body, with_allocator
from loralens.api.problems import documented
from loralens.api.schemas import MemoryAnswer
from loralens.core.answer.answers import memory_answer

router = APIRouter(tags=["memory"])


@router.get(
    "/memory",
    summary="Memory of one training step",
    response_model=MemoryAnswer,
    responses=documented(404, 422),
    openapi_extra={"parameters": [*query_parameters(), allocator_parameter()]},
)
def memory(query: Query) -> Response:
    """Peak, phases, breakdown and every term with its formula, for each method asked for."""
    return respond(memory_answer(query))


@router.post(
    "/memory",
    summary="Memory of one training step, nested recipe or your own config.json",
    response_model=MemoryAnswer,
    responses=documented(400, 404, 413, 415, 422),
    openapi_extra={"requestBody": with_allocator(request_body())},
)
def memory_of_body(body: JsonObject) -> Response:
    """The same answer for a recipe in JSON; `config` takes a config.json in place of a model name."""
    return respond(memory_answer(body))

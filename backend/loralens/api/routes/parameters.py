"""`/api/parameters`: exact counts, tensor by tensor."""

from __future__ import annotations

from fastapi import APIRouter, Response

from loralens.api.answers import respond
from loralens.api.bodies import JsonObject, Query
from loralens.api.openapi import query_parameters, request_body
from loralens.api.problems import documented
from loralens.api.schemas import ParametersAnswer
from loralens.core.answer.answers import parameters_answer

router = APIRouter(tags=["parameters"])


@router.get(
    "/parameters",
    summary="Parameter counts",
    response_model=ParametersAnswer,
    responses=documented(404, 422),
    openapi_extra={"parameters": query_parameters()},
)
def parameters(query: Query) -> Response:
    """Total and trainable counts, layers of a kind in one row, and where adapters can go."""
    return respond(parameters_answer(query))


@router.post(
    "/parameters",
    summary="Parameter counts, nested recipe or your own config.json",
    response_model=ParametersAnswer,
    responses=documented(400, 404, 413, 415, 422),
    openapi_extra={"requestBody": request_body()},
)
def parameters_of_body(body: JsonObject) -> Response:
    """The same answer for a recipe in JSON; `config` takes a config.json in place of a model name."""
    return respond(parameters_answer(body))

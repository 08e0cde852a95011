"""`/api/plan`: the coefficients with which a client computes answers itself."""

from __future__ import annotations

from fastapi import APIRouter, Response

from loralens.api.answers import respond
from loralens.api.bodies import JsonObject, Query
from loralens.api.openapi import query_parameters, request_body
from loralens.api.problems import documented
from loralens.api.schemas import PlanAnswer
from loralens.core.answer.answers import plan_answer

router = APIRouter(tags=["memory"])


@router.get(
    "/plan",
    summary="Coefficients of the memory formula",
    response_model=PlanAnswer,
    responses=documented(404, 422),
    openapi_extra={"parameters": query_parameters()},
)
def plan(query: Query) -> Response:
    """Polynomials in batch, length and rank: a slider moves without a request."""
    return respond(plan_answer(query))


@router.post(
    "/plan",
    summary="Coefficients of the memory formula, nested recipe or your own config.json",
    response_model=PlanAnswer,
    responses=documented(400, 404, 413, 415, 422),
    openapi_extra={"requestBody": request_body()},
)
def plan_of_body(body: JsonObject) -> Response:
    """The same answer for a recipe in JSON; `config` takes a config.json in place of a model name."""
    return respond(plan_answer(body))

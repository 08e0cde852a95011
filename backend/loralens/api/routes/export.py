"""`/api/export`: a recipe as a trainer's config."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody
from loralens.api.compute import computed
from loralens.api.openapi import request_body
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.question.kinds import Schema
from loralens.trainers.shapes import ExportAnswer
from loralens.trainers.targets import TARGETS

router = APIRouter(tags=["planner"])


def _request_body() -> Schema:
    body = request_body()
    content = body["content"]["application/json"]
    content["schema"]["properties"]["to"] = {
        "type": "string",
        "enum": [*TARGETS],
        "description": "The trainer; what the recipe leaves open stands as it has it by default. trl, ms-swift, torchtune and "
        "so on: its config; verl: its command in a shell script; trl-script, transformers and unsloth: a Python script that runs a step.",
    }
    content["schema"]["required"] = ["to"]
    del content["schema"]["properties"]["gpu"]  # a config names no card
    content["example"] = {"model": "Qwen/Qwen2.5-7B", "method": "qlora", "to": "axolotl"}
    return body


@router.post(
    "/export",
    summary="A recipe as a trainer's config",
    response_model=shape(ExportAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": _request_body()},
)
async def export(request: Request, body: JsonBody) -> Response:
    """The config reads back as the same recipe; words that the trainer cannot say are refused by name."""
    return await computed(request, "export", body)

"""`/api/fit`: does a step fit a GPU, what is the largest that does, and what would make it fit."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loralens.api.bodies import JsonBody
from loralens.api.compute import computed
from loralens.api.openapi import request_body
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.core.catalogue import MARKETS
from loralens.core.question.kinds import Schema
from loralens.planner.shapes import FitAnswer

router = APIRouter(tags=["planner"])


def _request_body() -> Schema:
    body = request_body()
    content = body["content"]["application/json"]
    content["schema"]["properties"] |= {
        "tokens": {
            "type": ["integer", "null"],
            "description": "Tokens of the whole training: then time and cost are answered too.",
        },
        "samples": {
            "type": ["integer", "null"],
            "description": "In place of tokens: samples of the whole training (completions, pairs or rows).",
        },
        "prompts": {
            "type": ["integer", "null"],
            "description": "In place of tokens, where the objective generates: prompts of the whole training.",
        },
        "generations": {
            "type": ["integer", "null"],
            "description": "Completions of each prompt; where nothing is said 8 for GRPO, 2 for RLOO, 1 for PPO.",
        },
        "utilization": {
            "type": ["number", "null"],
            "description": "Share of the GPU's dense peak to expect; an assumption else.",
        },
        "link_bytes_per_second": {
            "type": ["number", "null"],
            "description": "Measured between two GPUs of the machine; in place of the catalogue's links.",
        },
        "market": {
            "type": ["string", "null"],
            "enum": [*MARKETS, None],
            "description": "Whose prices `time.cost` has; on-demand where nothing is said. Spot machines can be taken away.",
        },
    }
    content["schema"]["required"] = ["gpu"]
    content["example"] = {"model": "7B", "method": "lora", "gpu": "rtx-4090", "tokens": 10_000_000}
    return body


@router.post(
    "/fit",
    summary="What fits a GPU, and what makes it fit",
    response_model=shape(FitAnswer),
    responses=documented(400, 404, 413, 415, 422, 429, 503),
    openapi_extra={"requestBody": _request_body()},
)
async def fit(request: Request, body: JsonBody) -> Response:
    """Not fitting is an answer, with the changes that would help, in order; it is no error."""
    return await computed(request, "fit", body)

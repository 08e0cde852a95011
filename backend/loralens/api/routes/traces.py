"""Traces: one training step of the real model on fake tensors, as a job.

`POST /api/traces` takes the body of `POST /api/memory` (without `method`: lora) and answers 202 `{id, events, status,
place}`. Events of the job's stream (`GET /api/jobs/{id}/events`), each with its JSON in `data`:

- `progress`: {method, done, total}, before each method
- `result`: {model: {id, name, family}, recipe, versions, leaves_out, traces: [{method, basis: "traced", parameters:
  {total, trainable}, peak: {phase, allocated_bytes, allocated_in_blocks_bytes}, breakdown: {weights_bytes, ...; sums
  to allocated_bytes}, phases: [{phase, peak_bytes}], computed: {phase, allocated_bytes, difference_bytes,
  difference_percent} | {error: {code, detail}}, seconds}]}
- `done` or `error`: the end (see the jobs routes)
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

from fastapi import APIRouter, Query

from loralens.api.bodies import JsonBody
from loralens.api.lab import NEEDS_LAB
from loralens.api.problems import documented
from loralens.api.routes.jobs import Jobs, JobStarted, started
from loralens.core.errors import DependencyMissing
from loralens.extras import how_to_install
from loralens.lab.trace.answer import check

router = APIRouter(tags=["traces"])
FUNCTION = "loralens.lab.trace.job:run"


@router.post(
    "/traces",
    status_code=202,
    summary="Trace one training step",
    dependencies=NEEDS_LAB,
    response_model=JobStarted,
    responses=documented(400, 404, 409, 413, 415, 422, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "object", "description": "The body of POST /api/memory."},
                    "example": {"model": "7B", "method": "lora", "recipe": {"sequence_length": 2048}},
                }
            },
        }
    },
)
def start_trace(
    body: JsonBody, jobs: Jobs, queue: Annotated[bool, Query(description="False: 409 if the device is busy.")] = True
) -> dict[str, object]:
    """Runs the real transformers model and PEFT without a GPU and without weights, and compares with the computed peak."""
    check(body)
    for package in ("transformers", "peft"):
        if find_spec(package) is None:
            raise DependencyMissing(f"tracing needs {package}", hint=how_to_install("trace"))
    return started(jobs.submit("trace", FUNCTION, body, "cpu", queue=queue))

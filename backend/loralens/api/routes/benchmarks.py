"""Benchmarks: start one, list what can be measured, read, download and compare results.

`POST /api/benchmarks` takes a `BenchmarkRequest` (all fields optional) and answers 202 `{id, events, status, place}`.
The event stream of the job (`GET /api/jobs/{id}/events`) then sends, each with its JSON in `data`:

- `started` (`Started`): points planned, variants, time budget, machine; before anything is measured
- `progress` (`Progress`): several times a second: fraction, ETA, medians so far of the current point
- `roofline` (`Roofline`): this run's measured limits
- `point` (`Point`): one finished point with all its rows (`Row`), noise floor, recommendation and warnings
- `skipped` (`Skipped`): a point that is not measured, and why
- `result` (`BenchmarkResult`): everything, raw samples included
- `done` or `error`: the end (see the jobs routes)

`GET /api/benchmarks` is the history, one line a run; `GET /api/jobs/{id}` has `result`, so a link with the id shares it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import ValidationError

from loralens.api.answers import respond
from loralens.api.bodies import JsonBody
from loralens.api.devices import check_device
from loralens.api.lab import NEEDS_LAB
from loralens.api.problems import documented
from loralens.api.routes.jobs import Jobs, JobStarted, started
from loralens.api.visitor_jobs import VisitorJobs
from loralens.core.errors import InvalidInput, JobNotFound
from loralens.jobs.model import Job
from loralens.lab.bench import summary
from loralens.lab.bench.compare import BenchmarkComparison, compare
from loralens.lab.bench.schema import BenchmarkResult, Point, Progress, Roofline, Skipped, Started
from loralens.lab.matmul.catalogue import VARIANTS
from loralens.lab.words import BenchmarkRequest, Mode, VariantInfo, request_from

router = APIRouter(tags=["benchmarks"])
FUNCTION = "loralens.lab.bench.job:run"
JobId = Annotated[str, Query(max_length=40, description="Id of a finished benchmark.")]


class Events(BenchmarkResult):
    """Never answered as such: names the data of each event type, so that generated clients have the types."""

    started: Started
    progress: Progress
    roofline: Roofline
    point: Point
    skip: Skipped


@router.post(
    "/benchmarks",
    status_code=202,
    summary="Start a benchmark",
    dependencies=NEEDS_LAB,
    response_model=JobStarted,
    responses={**documented(400, 409, 413, 415, 422, 503), 299: {"model": Events, "description": "Event types."}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": BenchmarkRequest.model_json_schema(ref_template="#/components/schemas/{model}"),
                    "example": {"dtype": "bfloat16", "tokens": 16, "rank": 8, "seconds": 10},
                }
            },
        }
    },
)
def start_benchmark(
    body: JsonBody, jobs: Jobs, queue: Annotated[bool, Query(description="False: 409 if the device is busy.")] = True
) -> dict[str, Any]:
    """Queues a run on its device. Devices of this machine: GET /api/system."""
    request = request_from(body)
    device = request.device if request.device != "cuda" else "cuda:0"
    check_device(device)
    spec = request.model_copy(update={"device": device}).model_dump(mode="json")
    return started(jobs.submit("benchmark", FUNCTION, spec, device, queue=queue))


@router.get("/benchmarks", summary="Past runs", response_model=summary.BenchmarkHistory, responses=documented(422))
def list_benchmarks(
    jobs: Jobs,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    before: Annotated[str | None, Query(max_length=40)] = None,
) -> summary.BenchmarkHistory:
    """Runs of this machine, newest first: when, where, what, and the headline ratio of each."""
    found = jobs.jobs(kind="benchmark", limit=limit + 1, before=before)
    runs = [run for job in found[:limit] if (run := _summary(job, jobs)) is not None]
    return summary.BenchmarkHistory(runs=runs, next=found[limit - 1].id if len(found) > limit else None)


@router.get("/benchmarks/variants", summary="Every way to compute the product", response_model=list[VariantInfo])
def list_variants(mode: Mode | None = None) -> list[VariantInfo]:
    """Id, name and description of each variant; whether it runs here is said by a run."""
    return [variant for variant in VARIANTS if mode in (None, variant.mode)]


@router.get(
    "/benchmarks/compare",
    summary="Compare two results",
    response_model=BenchmarkComparison,
    responses=documented(404, 422),
)
def compare_benchmarks(jobs: Jobs, a: JobId, b: JobId) -> BenchmarkComparison:
    """Point by point: ratios to dense of both runs, and whether they differ by more than their noise."""
    return compare(_result(jobs, a), _result(jobs, b))


@router.get(
    "/benchmarks/{job_id}",
    summary="Download a result",
    response_model=BenchmarkResult,
    responses=documented(404),
)
def download_benchmark(job_id: str, jobs: Jobs) -> Response:
    """The stored result as a file, as `loralens bench --compare` reads it."""
    _result(jobs, job_id)
    disposition = f'attachment; filename="loralens-benchmark-{job_id}.json"'
    return respond(dict(jobs.result(job_id) or {}), headers={"content-disposition": disposition})


@router.delete(
    "/benchmarks/{job_id}",
    status_code=204,
    summary="Remove a run from the history",
    responses=documented(404, 409),
)
def forget_benchmark(job_id: str, jobs: Jobs) -> None:
    """For good: its link leads nowhere afterwards. A run that waits or runs has to be cancelled first."""
    if jobs.job(job_id).kind != "benchmark":
        raise JobNotFound(f"{job_id} is not a benchmark", field="id", hint="GET /api/benchmarks lists them")
    jobs.forget(job_id)


def _summary(job: Job, jobs: VisitorJobs) -> summary.RunSummary | None:
    """None for a run whose request this version cannot read."""
    try:
        request = BenchmarkRequest.model_validate(job.spec)
    except ValidationError:
        return None
    return summary.RunSummary(
        id=job.id,
        status=job.status,
        place=job.place,
        created_seconds=job.created_seconds,
        ended_seconds=job.ended_seconds,
        device=job.device,
        request=request,
        axis=None if request.sweep is None else request.sweep.axis,
        **summary.told(list(_events(job.id, jobs))),
    )


def _events(job_id: str, jobs: VisitorJobs) -> Iterator[tuple[str, Any]]:
    """The result alone, or what a run without one has told."""
    result = jobs.result(job_id)
    if result is not None:
        yield "result", result
        return
    position = 0
    while batch := jobs.events(job_id, position):
        position = batch[-1].sequence
        yield from ((event.type, event.data) for event in batch if event.type != "progress")


def _result(jobs: VisitorJobs, job_id: str) -> BenchmarkResult:
    job = jobs.job(job_id)
    data = jobs.result(job_id)
    if job.kind != "benchmark" or data is None:
        raise JobNotFound(f"{job_id} has no benchmark result (it is {job.status})", field="id", hint="run it again")
    try:
        return BenchmarkResult.model_validate(data)
    except ValidationError:
        raise InvalidInput(f"the result of {job_id} was stored by another version", hint="run it again") from None

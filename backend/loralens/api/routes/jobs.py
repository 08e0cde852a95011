"""Jobs: state, live events, cancel. Whatever kind a job is, it is followed here.

A stream (`GET /api/jobs/{id}/events`) sends one server-sent event per event of the job: `event:` is the event's type,
`id:` its sequence number, `data:` its JSON. It begins after `Last-Event-ID` (browsers send it when they reconnect) or
after `?after=`, and always ends with `event: done` (data: the job) or `event: error` (data: a problem body). Close the
EventSource on either. While a job waits, `event: queued` (no id) tells its place. Closing a stream does not cancel.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from loralens.api.problems import documented
from loralens.api.visitor_jobs import VisitorJobs
from loralens.api.visitors import visitor_of
from loralens.core.errors import JobNotFound, LoraLensError
from loralens.endpoints.problem import problem
from loralens.jobs import errors
from loralens.jobs.choice import new_runner
from loralens.jobs.manager import JobManager
from loralens.jobs.model import Job, Status

router = APIRouter(tags=["jobs"])
TAIL_SECONDS = 0.1
MAX_SEQUENCE = 2**53 - 1
"""The largest whole number that every reader of JSON keeps; SQLite would hold 2^63 - 1."""


class JobAnswer(BaseModel):
    """A job as it stands. Times are seconds since 1970."""

    id: str
    kind: str
    device: str
    status: Status
    place: int | None = Field(description="Jobs ahead of it on its device; null once it has ended.")
    created_seconds: float
    started_seconds: float | None
    ended_seconds: float | None
    last_event: int = Field(description="Sequence number of its newest event.")
    events: str = Field(description="Address of its event stream.")
    error: dict[str, object] | None = Field(description="A problem body, when it failed or was interrupted.")
    spec: dict[str, object]
    result: dict[str, object] | None = Field(None, description="Data of its result event; not in lists.")


class JobStarted(BaseModel):
    """The answer to starting a job."""

    id: str
    events: str
    status: Status
    place: int | None


class JobList(BaseModel):
    """Newest jobs first."""

    jobs: list[JobAnswer]
    next: str | None = Field(description="Pass as `before` for older jobs; null at the end.")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The manager lives as long as the server: `app.state.jobs`."""
    settings = app.state.settings
    manager = JobManager(settings.state_directory(), new_runner=new_runner(settings.runner, settings.ray_address))
    app.state.jobs = manager
    await asyncio.to_thread(manager.start)
    try:
        yield
    finally:
        await asyncio.to_thread(manager.close)


def jobs_of(request: Request) -> VisitorJobs:
    """The server's jobs, as the one who asks may see them."""
    return VisitorJobs(request.app.state.jobs, visitor_of(request), request.app.state.settings.client_jobs)


Jobs = Annotated[VisitorJobs, Depends(jobs_of)]


def started(job: Job) -> dict[str, object]:
    """The body of a 202; route authors answer it after `submit`."""
    return {"id": job.id, "events": f"/api/jobs/{job.id}/events", "status": job.status, "place": job.place}


def answer(job: Job, result: Any = None) -> dict[str, object]:
    """A job for a client."""
    return {
        "id": job.id,
        "kind": job.kind,
        "device": job.device,
        "status": job.status,
        "place": job.place,
        "created_seconds": job.created_seconds,
        "started_seconds": job.started_seconds,
        "ended_seconds": job.ended_seconds,
        "last_event": job.last_event,
        "events": f"/api/jobs/{job.id}/events",
        "error": None if job.error is None else problem(**job.error),
        "spec": job.spec,
        "result": result,
    }


@router.get("/jobs", summary="Newest jobs", response_model=JobList, responses=documented(422))
def list_jobs(
    jobs: Jobs,
    kind: Annotated[str | None, Query(max_length=40)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
    before: Annotated[str | None, Query(max_length=40)] = None,
) -> dict[str, object]:
    """History of this server's jobs, those that run included; where several people use it, of one's own jobs."""
    found = jobs.jobs(kind=kind, limit=limit + 1, before=before)
    more = found[limit - 1].id if len(found) > limit else None
    return {"jobs": [answer(job) for job in found[:limit]], "next": more}


@router.get("/jobs/{job_id}", summary="One job", response_model=JobAnswer, responses=documented(404))
def read_job(job_id: str, jobs: Jobs) -> dict[str, object]:
    """State, error and result of a job. The id is the whole secret: whoever has it may read it."""
    return answer(jobs.job(job_id), jobs.result(job_id))


@router.delete("/jobs/{job_id}", summary="Cancel a job", response_model=JobAnswer, responses=documented(404))
def cancel_job(job_id: str, jobs: Jobs) -> dict[str, object]:
    """Cancels a job that waits or runs, which takes about a second at most; one that has ended stays as it is."""
    return answer(jobs.cancel(job_id))


async def _known(job_id: str, jobs: Jobs) -> Job:
    # In a dependency, since an error inside the stream would come after its 200.
    return await asyncio.to_thread(jobs.job, job_id)


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses=documented(404),
)
async def job_events(
    job: Annotated[Job, Depends(_known)],
    jobs: Jobs,
    after: Annotated[int, Query(ge=0, le=MAX_SEQUENCE)] = 0,
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Every event of the job as it comes, from the beginning or from where the client was; see this module's text."""
    # Lenient: a browser that got a 422 here would never reconnect.
    position = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 16 else after
    place = -1
    try:
        while True:
            job = await asyncio.to_thread(jobs.job, job.id)
            while batch := await asyncio.to_thread(jobs.events, job.id, position):
                for event in batch:
                    position = event.sequence
                    yield ServerSentEvent(data=event.data, event=event.type, id=str(event.sequence))
            if not job.active:
                break
            if job.status == "queued" and job.place != place:
                place = job.place or 0
                yield ServerSentEvent(data={"place": place}, event="queued")
            await asyncio.sleep(TAIL_SECONDS)
    except LoraLensError as error:  # the store went away, or the job was forgotten meanwhile
        yield ServerSentEvent(data=problem(**errors.record(error)), event="error")
        return
    if job.status in ("failed", "interrupted"):
        body = job.error or errors.record(JobNotFound("the job ended without saying why"))
        yield ServerSentEvent(data=problem(**body), event="error")
    else:
        yield ServerSentEvent(data=answer(job), event="done")

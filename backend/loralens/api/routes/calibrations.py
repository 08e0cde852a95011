"""A machine's own rates of time: start the measurement, read what is kept.

`POST /api/calibrations` takes {"device", "threads", "members"}, all optional, and answers 202 {id, events, status, place}. Some two
dozen small training steps are timed, for ten minutes at most. Events of the job's stream (`GET /api/jobs/{id}/events`):

- `case`: {number, of, method, seconds}: one step timed
- `message`: {kind, bytes, seconds}: one collective among the GPUs of this machine timed
- `result`: {calibration}: as `GET /api/calibrations` lists it, already kept
- `done` or `error`: the end (see the jobs routes)
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from loralens.api.bodies import JsonRoute
from loralens.api.devices import check_device
from loralens.api.lab import NEEDS_LAB
from loralens.api.problems import documented
from loralens.api.routes.jobs import Jobs, JobStarted, started
from loralens.calibrations import calibrations
from loralens.core.time.calibration import Calibration

router = APIRouter(tags=["benchmarks"], route_class=JsonRoute)
KIND: Final = "calibration"
FUNCTION: Final = "loralens.lab.measure.job:run"


class CalibrationRequest(BaseModel, extra="forbid"):
    """What `POST /api/calibrations` takes; every field may be left out."""

    device: str = Field("cpu", description="cpu or cuda:0; devices of this machine: GET /api/system.", max_length=20)
    threads: int = Field(1, ge=1, le=256, description="CPU threads; more than one needs a quiet machine.")
    members: int | None = Field(
        None, ge=1, le=64, description="GPUs, or processes, among which transfers are timed too; null: all GPUs here."
    )


class CalibrationsAnswer(BaseModel):
    """What is kept: one of each device, number of threads and dtype, the newest last; and the job that measures now."""

    calibrations: list[Calibration]
    running: str | None = Field(description="Id of the job that calibrates at this moment.")


@router.post(
    "/calibrations",
    status_code=202,
    summary="Measure this machine's own rates of time",
    dependencies=NEEDS_LAB,
    response_model=JobStarted,
    responses=documented(400, 409, 413, 415, 422, 503),
)
def start_calibration(
    body: CalibrationRequest,
    jobs: Jobs,
    queue: Annotated[bool, Query(description="False: 409 if the device is busy.")] = True,
) -> dict[str, Any]:
    """Times small training steps on the device; of these jobs one waits or runs at a time."""
    check_device(body.device)
    return started(jobs.submit(KIND, FUNCTION, body.model_dump(), body.device, queue=queue, once=True))


@router.get("/calibrations", summary="Rates of time that were measured here", response_model=CalibrationsAnswer)
def list_calibrations(request: Request, jobs: Jobs) -> CalibrationsAnswer:
    """Of this machine, as `loralens bench --calibrate` keeps them too; `loralens measure` computes with them."""
    kept = calibrations(request.app.state.settings.state_directory())
    active = jobs.active(KIND)
    return CalibrationsAnswer(calibrations=kept, running=active and active.id)

"""The hub: one base and its adapters; training, switching, and the proof that the base is untouched.

`GET /api/adapters` is the hub's state. `POST /api/adapters/train` and `/api/adapters/bench` start jobs (202; see the
jobs routes); events of training: `progress` {stage, step, steps, loss}, `result` {hash, parameters, adapters, cached}.
Events of bench: `timing` (`SwitchTimingAnswer`), `drift` (`DriftAnswer`), `result` (`SwitchMeasurement`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from fastapi import APIRouter, Response

from loralens.api import hub_schemas as schemas
from loralens.api.answers import respond
from loralens.api.bodies import JsonRoute
from loralens.api.hub_service import Service
from loralens.api.problems import documented
from loralens.api.routes.jobs import Jobs, JobStarted, started
from loralens.core.errors import InvalidInput

router = APIRouter(tags=["adapters"], route_class=JsonRoute)
TRAINING: Final = "adapters"
MEASURING: Final = "switching"
"""Kinds of the hub's two jobs."""


def _state(service: Service, jobs: Jobs) -> Response:
    running = {name: jobs.active(kind) for name, kind in (("training", TRAINING), ("measuring", MEASURING))}
    return respond(service.state() | {name: None if job is None else job.id for name, job in running.items()})


@router.get("/adapters", summary="The hub as it is", response_model=schemas.HubState, responses=documented(503))
def read_hub(service: Service, jobs: Jobs) -> Response:
    """Base, loaded adapters, what is active, bytes on disk, last and measured switch times, what can be loaded, what runs."""
    return _state(service, jobs)


@router.post(
    "/adapters/train",
    status_code=202,
    summary="Train base and six adapters",
    response_model=JobStarted,
    responses=documented(400, 409, 413, 422, 503),
)
def train_hub(body: schemas.TrainRequest, service: Service, jobs: Jobs) -> dict[str, object]:
    """A job of some minutes on two cores, one at a time: asked again, the one that runs is answered. Trained hubs are kept."""
    spec = {"preset": body.preset, "folder": str(service.hubs)}
    return started(jobs.submit(TRAINING, "loralens.lab.adapters.job:train", spec, once=True))


@router.post(
    "/adapters/bench",
    status_code=202,
    summary="Measure switching on Llama-2-7B shapes",
    response_model=JobStarted,
    responses={
        **documented(400, 409, 413, 422, 503),
        299: {"model": schemas.SwitchMeasurement, "description": "Event type."},
    },
)
def bench_switching(body: schemas.BenchRequest, service: Service, jobs: Jobs) -> dict[str, object]:
    """Real sizes, random weights, a real file to reload; removed at the end."""
    spec = {"layers": body.layers, "rank": body.rank, "folder": str(service.hubs.parent / "shapes")}
    return started(jobs.submit(MEASURING, "loralens.lab.adapters.job:switching", spec))


@router.post(
    "/adapters/switch",
    summary="Switch the active adapter",
    response_model=schemas.SwitchAnswer,
    responses=documented(400, 404, 413, 422, 503),
)
def switch_adapter(body: schemas.SwitchRequest, service: Service) -> Response:
    """By index, pointer, file or merged copy; null is the base alone. The answer says how long it took."""
    return respond(asdict(service.switch(body.adapter, body.way)))


@router.post(
    "/adapters/measure",
    summary="Time every way of switching on this hub",
    response_model=schemas.SwitchMeasurement,
    responses=documented(409, 422, 503),
)
def measure_hub(service: Service) -> Response:
    """Takes about three seconds; reloading the base is the yardstick."""
    return respond(service.measure())


@router.post(
    "/adapters/verify",
    summary="Prove that the base is untouched",
    response_model=schemas.VerifyAnswer,
    responses=documented(400, 413, 422, 503),
)
def verify_hub(body: schemas.VerifyRequest, service: Service) -> Response:
    """Outputs of all adapters twice, compared bit for bit, and the hash of the base's bytes."""
    return respond(service.verify(body.prompt))


@router.post(
    "/adapters/base",
    summary="Choose the base model",
    response_model=schemas.HubState,
    responses=documented(400, 404, 413, 422, 503),
)
def use_base(body: schemas.BaseRequest, service: Service, jobs: Jobs) -> Response:
    """One of `bases`: the tiny one, or a folder below LORALENS_MODELS_DIR. Loaded adapters are dropped."""
    service.use(body.base)
    return _state(service, jobs)


@router.post(
    "/adapters/load",
    summary="Load an adapter of the shelf into the hub",
    response_model=schemas.LoadAnswer,
    responses=documented(400, 404, 413, 422, 503),
)
def load_adapter(body: schemas.LoadRequest, service: Service) -> Response:
    """It must fit the base: same module names and shapes."""
    return respond(service.load(body.id, body.name))


@router.post(
    "/adapters/unload",
    summary="Unload an adapter",
    response_model=schemas.HubState,
    responses=documented(400, 404, 413, 422, 503),
)
def unload_adapter(body: schemas.SwitchRequest, service: Service, jobs: Jobs) -> Response:
    """Running streams that use it finish first; its files stay."""
    if body.adapter is None:
        raise InvalidInput("the base cannot be unloaded", field="adapter")
    service.unload(body.adapter)
    return _state(service, jobs)

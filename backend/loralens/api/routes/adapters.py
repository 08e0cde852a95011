"""Adapters: the hub as it is, switching, generation by several adapters at once, the inspector and its shelf.

`GET /api/adapters` is the hub's state. `POST /api/adapters/train` and `/api/adapters/bench` start jobs (202; see the
jobs routes); events of training: `progress` {stage, step, steps, loss}, `result` {hash, parameters, adapters, cached}.
Events of bench: `timing` (`SwitchTimingAnswer`), `drift` (`DriftAnswer`), `result` (`SwitchMeasurement`).

`GET /api/adapters/generate` streams: `event: token` (`GenerationToken`) for each row, then `event: done`
(`GenerationEnd`) or `event: error` (a problem). What is switched meanwhile does not change a running stream.
"""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from loralens.api import adapter_schemas as schemas
from loralens.api.answers import respond
from loralens.api.problems import documented
from loralens.api.routes.jobs import Jobs, JobStarted, started
from loralens.api.uploads import MAX_UPLOAD_BYTES, Upload
from loralens.core.errors import DependencyMissing, InvalidInput

if TYPE_CHECKING:
    from loralens.lab.adapters.adapter import Adapter
    from loralens.lab.adapters.generation import Token
    from loralens.lab.adapters.service import HubService

router = APIRouter(tags=["adapters"])
MAX_UPLOAD_NOTE = "Two files, config and weights; safetensors only; at most LORALENS_MAX_ADAPTER_BYTES."
_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": MAX_UPLOAD_NOTE,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["config", "weights"],
                    "properties": {name: {"type": "string", "format": "binary"} for name in ("config", "weights")},
                }
            }
        },
    }
}
_FILES = {"config": "adapter_config.json", "weights": "adapter_model.safetensors"}


def hub_service(request: Request) -> HubService:
    """The server's hub; torch is imported with the first request that needs it."""
    state = request.app.state
    if not hasattr(state, "adapters"):
        try:
            from loralens.lab.adapters.service import HubService
        except ImportError as error:
            raise DependencyMissing(f"adapters need {error.name}", hint='pip install "loralens[lab]"') from None
        settings = state.settings
        state.adapters = HubService(settings.state_directory(), settings.adapters_dir, settings.models_dir)
    service: HubService = state.adapters
    return service


Service = Annotated[Any, Depends(hub_service)]


@router.get("/adapters", summary="The hub as it is", response_model=schemas.HubState, responses=documented(503))
def read_hub(service: Service) -> Response:
    """Base, loaded adapters, what is active, bytes on disk, last and measured switch times, and what can be loaded."""
    return respond(service.state())


@router.post(
    "/adapters/train",
    status_code=202,
    summary="Train base and six adapters",
    response_model=JobStarted,
    responses=documented(409, 413, 422, 503),
)
def train_hub(body: schemas.TrainRequest, service: Service, jobs: Jobs) -> dict[str, Any]:
    """A job of some minutes on two cores; what was trained before is found and kept."""
    spec = {"preset": body.preset, "folder": str(service.hubs)}
    return started(jobs.submit("adapters", "loralens.lab.adapters.job:train", spec))


@router.post(
    "/adapters/bench",
    status_code=202,
    summary="Measure switching on Llama-2-7B shapes",
    response_model=JobStarted,
    responses={
        **documented(409, 413, 422, 503),
        299: {"model": schemas.SwitchMeasurement, "description": "Event type."},
    },
)
def bench_switching(body: schemas.BenchRequest, service: Service, jobs: Jobs) -> dict[str, Any]:
    """Real sizes, random weights, a real file to reload; removed at the end."""
    spec = {"layers": body.layers, "rank": body.rank, "folder": str(service.hubs.parent / "shapes")}
    return started(jobs.submit("switching", "loralens.lab.adapters.job:switching", spec))


@router.post(
    "/adapters/switch",
    summary="Switch the active adapter",
    response_model=schemas.SwitchAnswer,
    responses=documented(404, 413, 422, 503),
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
    responses=documented(413, 422, 503),
)
def verify_hub(body: schemas.VerifyRequest, service: Service) -> Response:
    """Outputs of all adapters twice, compared bit for bit, and the hash of the base's bytes."""
    return respond(service.verify(body.prompt))


@router.post(
    "/adapters/base",
    summary="Choose the base model",
    response_model=schemas.HubState,
    responses=documented(404, 413, 422, 503),
)
def use_base(body: schemas.BaseRequest, service: Service) -> Response:
    """One of `bases`: the tiny one, or a folder below LORALENS_MODELS_DIR. Loaded adapters are dropped."""
    service.use(body.base)
    return respond(service.state())


@router.post(
    "/adapters/load",
    summary="Load an adapter of the shelf into the hub",
    response_model=schemas.LoadAnswer,
    responses=documented(404, 413, 422, 503),
)
def load_adapter(body: schemas.LoadRequest, service: Service) -> Response:
    """It must fit the base: same module names and shapes."""
    return respond(service.load(body.id, body.name))


@router.post(
    "/adapters/unload",
    summary="Unload an adapter",
    response_model=schemas.HubState,
    responses=documented(404, 413, 422, 503),
)
def unload_adapter(body: schemas.SwitchRequest, service: Service) -> Response:
    """Running streams that use it finish first; its files stay."""
    if body.adapter is None:
        raise InvalidInput("the base cannot be unloaded", field="adapter")
    service.unload(body.adapter)
    return respond(service.state())


class Generation:
    """A checked request for a stream; a problem found here is answered with its own status."""

    def __init__(
        self,
        service: Service,
        prompt: Annotated[str, Query(max_length=4000)],
        adapters: Annotated[
            str | None,
            Query(max_length=4200, description="Names with commas, `base` for none; left out: the active one."),
        ] = None,
        tokens: Annotated[int, Query(ge=1, le=512)] = 48,
        temperature: Annotated[float, Query(ge=0, le=10)] = 0.0,
        seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> None:
        names = None if adapters is None else [None if n in ("", "base") else n for n in adapters.split(",")]
        self._context: AbstractContextManager[Iterator[Token]] = service.streaming(
            prompt, names, tokens=tokens, temperature=temperature, seed=seed
        )
        self.tokens = self._context.__enter__()

    def close(self) -> None:
        """Release the adapters that the stream pinned."""
        self._context.__exit__(None, None, None)


def checked_generation(generation: Annotated[Generation, Depends()]) -> Iterator[Generation]:
    """Closes the stream when the response has ended, however it ended."""
    try:
        yield generation
    finally:
        generation.close()


@router.get(
    "/adapters/generate",
    summary="Generate by one or several adapters, token by token",
    response_class=EventSourceResponse,
    responses={
        **documented(404, 409, 422, 503),
        298: {"model": schemas.GenerationToken, "description": "Data of `event: token`."},
        299: {"model": schemas.GenerationEnd, "description": "Data of `event: done`."},
    },
)
async def generate(
    generation: Annotated[Generation, Depends(checked_generation)],
) -> AsyncIterator[ServerSentEvent]:
    """Each adapter is a row of one batch: six answers cost little more than one."""
    began, count = time.perf_counter(), 0
    while (token := await asyncio.to_thread(next, generation.tokens, None)) is not None:
        count += 1
        yield ServerSentEvent(event="token", data=asdict(token))
    seconds = time.perf_counter() - began
    end = {"tokens": count, "seconds": seconds, "tokens_per_second": count / seconds if seconds > 0 else 0.0}
    yield ServerSentEvent(event="done", data=end)


Energy = Annotated[float, Query(gt=0, le=1, description="Share that “could be rank k” must keep.")]


@router.post(
    "/adapters/inspect",
    summary="Look into an adapter without keeping it",
    response_model=schemas.InspectAnswer,
    responses=documented(400, 413, 415, 422, 503),
    openapi_extra=_UPLOAD,
    max_body_size=MAX_UPLOAD_BYTES,
)
def inspect_upload(upload: Upload, energy: Energy = 0.99) -> Response:
    """Everything is checked before a tensor is made; nothing is written to disk."""
    return respond(_report(_read(upload), None, energy))


@router.post(
    "/adapters/uploads",
    status_code=201,
    summary="Keep an adapter",
    response_model=schemas.InspectAnswer,
    responses=documented(400, 413, 415, 422, 503),
    openapi_extra=_UPLOAD,
    max_body_size=MAX_UPLOAD_BYTES,
)
def keep_upload(
    upload: Upload, service: Service, label: Annotated[str, Query(max_length=80)] = "", energy: Energy = 0.99
) -> Response:
    """Kept under an id made from its content; then it can be resized, downloaded and loaded."""
    adapter = _read(upload)
    return respond(_report(adapter, service.shelf.add(adapter, label).id, energy), 201)


@router.get(
    "/adapters/kept/{id}",
    summary="Look into a kept adapter",
    response_model=schemas.InspectAnswer,
    responses=documented(404, 422, 503),
)
def inspect_kept(id: str, service: Service, energy: Energy = 0.99) -> Response:
    """The same report as for an upload."""
    from loralens.lab.adapters.files import read_adapter

    return respond(_report(read_adapter(service.shelf.folder(id)), id, energy))


@router.get(
    "/adapters/loaded/{name}",
    summary="Look into a loaded adapter",
    response_model=schemas.InspectAnswer,
    responses=documented(404, 422, 503),
)
def inspect_loaded(name: str, service: Service, energy: Energy = 0.99) -> Response:
    """The spectrum of an adapter that is in the hub, the six trained ones included."""
    return respond(_report(service.hub().adapter(name), None, energy))


@router.post(
    "/adapters/kept/{id}/resize",
    status_code=201,
    summary="Resize by truncated SVD",
    response_model=schemas.ResizeAnswer,
    responses=documented(404, 413, 422, 503),
)
def resize_kept(id: str, body: schemas.ResizeRequest, service: Service) -> Response:
    """The best adapter of the rank, kept under a new id; the error it costs is stated."""
    from loralens.lab.adapters.files import read_adapter
    from loralens.lab.adapters.resize import resize_adapter

    old = service.shelf.find(id)
    result = resize_adapter(
        read_adapter(service.shelf.folder(id)), rank=body.rank, energy=body.energy, mixed=body.mixed
    )
    kept = service.shelf.add(result.adapter, f"{old.label[:60]}, rank {result.rank}")
    return respond({"id": kept.id, **result.to_dict(), "file_bytes": kept.file_bytes}, 201)


@router.get(
    "/adapters/kept/{id}/files/{file}",
    summary="Download one file of a kept adapter",
    response_class=Response,
    responses={**documented(404, 422, 503), 200: {"content": {"application/octet-stream": {}}}},
)
def download_file(id: str, file: Literal["config", "weights"], service: Service) -> Response:
    """adapter_config.json or adapter_model.safetensors."""
    content = (service.shelf.folder(id) / _FILES[file]).read_bytes()
    return _attachment(content, _FILES[file], "application/json" if file == "config" else "application/octet-stream")


@router.get(
    "/adapters/kept/{id}/download",
    summary="Download a kept adapter",
    response_class=Response,
    responses={**documented(404, 422, 503), 200: {"content": {"application/zip": {}}}},
)
def download_adapter(id: str, service: Service) -> Response:
    """Both files in one uncompressed archive."""
    folder, buffer = service.shelf.folder(id), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in _FILES.values():
            archive.writestr(f"adapter/{name}", (folder / name).read_bytes())
    return _attachment(buffer.getvalue(), "adapter.zip", "application/zip")


@router.delete("/adapters/kept/{id}", status_code=204, summary="Delete an upload", responses=documented(404, 422, 503))
def delete_kept(id: str, service: Service) -> Response:
    """The registry folder is never written."""
    service.shelf.remove(id)
    return Response(status_code=204)


def _read(upload: tuple[bytes, bytes]) -> Adapter:
    try:
        from loralens.lab.adapters.files import read_adapter_bytes
    except ImportError as error:
        raise DependencyMissing(f"adapters need {error.name}", hint='pip install "loralens[lab]"') from None
    return read_adapter_bytes(*upload)


def _report(adapter: Adapter, id_: str | None, energy: float) -> dict[str, Any]:
    from loralens.lab.adapters.files import weights_bytes
    from loralens.lab.adapters.inspect import inspect_adapter

    size = len(weights_bytes(adapter)) + len(adapter.config.to_json())
    return {"id": id_, **inspect_adapter(adapter, energy).to_dict(), "file_bytes": size}


def _attachment(content: bytes, name: str, media_type: str) -> Response:
    return Response(content, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'})

"""Adapter files: the inspector, the shelf of kept uploads, resizing and downloads."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI, Query, Response

from loralens.api import adapter_schemas as schemas
from loralens.api.adapter_work import AdapterWork, Work
from loralens.api.answers import respond
from loralens.api.bodies import JsonRoute
from loralens.api.hub_service import Service
from loralens.api.lab import NEEDS_LAB
from loralens.api.problems import documented
from loralens.api.shape import shape
from loralens.api.uploads import MAX_UPLOAD_BYTES, Upload
from loralens.lab.adapters.answers import IdentifiedAnswer

router = APIRouter(tags=["adapters"], route_class=JsonRoute)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The process that looks into adapters ends with the server: `app.state.adapter_work`."""
    app.state.adapter_work = work = AdapterWork(app.state.settings)
    try:
        yield
    finally:
        await asyncio.to_thread(work.close)


MAX_UPLOAD_NOTE = "Two files, config and weights; safetensors only; at most LORALENS_MAX_ADAPTER_BYTES."
_UPLOAD: dict[str, object] = {
    "requestBody": {
        "required": True,
        "description": MAX_UPLOAD_NOTE,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["config", "weights"],
                    "properties": {name: {"type": "string", "format": "binary"} for name in ("config", "weights")},
                    "additionalProperties": False,
                }
            }
        },
    }
}
_FILES = {"config": "adapter_config.json", "weights": "adapter_model.safetensors"}


Energy = Annotated[float, Query(gt=0, le=1, description="Share that “could be rank k” must keep.")]


@router.post(
    "/adapters/inspect",
    summary="Look into an adapter without keeping it",
    dependencies=NEEDS_LAB,
    response_model=schemas.InspectAnswer | shape(IdentifiedAnswer),
    responses=documented(400, 413, 415, 422, 503),
    openapi_extra=_UPLOAD,
    max_body_size=MAX_UPLOAD_BYTES,
)
def inspect_upload(upload: Upload, work: Work, energy: Energy = 0.99) -> Response:
    """Everything is checked before a tensor is made, and nothing is kept. Of a type without a spectrum: what it is, and how large."""
    return respond(work.of_upload("inspect", upload, energy=energy))


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
    upload: Upload, work: Work, label: Annotated[str, Query(max_length=80)] = "", energy: Energy = 0.99
) -> Response:
    """Kept under an id made from its content; then it can be resized, downloaded and loaded."""
    return respond(work.of_upload("keep", upload, label=label, energy=energy), 201)


@router.get(
    "/adapters/kept/{id}",
    summary="Look into a kept adapter",
    response_model=schemas.InspectAnswer,
    responses=documented(404, 422, 503),
)
def inspect_kept(id: str, work: Work, energy: Energy = 0.99) -> Response:
    """The same report as for an upload."""
    return respond(work.of_kept("inspect_kept", id, energy=energy))


@router.get(
    "/adapters/loaded/{name}",
    summary="Look into a loaded adapter",
    response_model=schemas.InspectAnswer,
    responses=documented(404, 422, 503),
)
def inspect_loaded(name: str, service: Service, energy: Energy = 0.99) -> Response:
    """The spectrum of an adapter that is in the hub, the six trained ones included."""
    adapter = service.hub().adapter(name)
    from loralens.lab.adapters.looking import report  # torch is here already, with the hub

    return respond(report(adapter, None, energy))


@router.post(
    "/adapters/kept/{id}/resize",
    status_code=201,
    summary="Resize by truncated SVD",
    response_model=schemas.ResizeAnswer,
    responses=documented(400, 404, 413, 422, 503),
)
def resize_kept(id: str, body: schemas.ResizeRequest, work: Work) -> Response:
    """The best adapter of the rank, kept under a new id; the error it costs is stated."""
    return respond(work.of_kept("resize", id, rank=body.rank, energy=body.energy, mixed=body.mixed), 201)


@router.get(
    "/adapters/kept/{id}/files/{file}",
    summary="Download one file of a kept adapter",
    response_class=Response,
    responses={**documented(404, 422, 503), 200: {"content": {"application/octet-stream": {}}}},
)
def download_file(id: str, file: Literal["config", "weights"], work: Work) -> Response:
    """adapter_config.json or adapter_model.safetensors."""
    content = (work.shelf.folder(id) / _FILES[file]).read_bytes()
    return _attachment(content, _FILES[file], "application/json" if file == "config" else "application/octet-stream")


@router.get(
    "/adapters/kept/{id}/download",
    summary="Download a kept adapter",
    response_class=Response,
    responses={**documented(404, 422, 503), 200: {"content": {"application/zip": {}}}},
)
def download_adapter(id: str, work: Work) -> Response:
    """Both files in one uncompressed archive."""
    folder, buffer = work.shelf.folder(id), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in _FILES.values():
            archive.writestr(f"adapter/{name}", (folder / name).read_bytes())
    return _attachment(buffer.getvalue(), "adapter.zip", "application/zip")


@router.delete("/adapters/kept/{id}", status_code=204, summary="Delete an upload", responses=documented(404, 422, 503))
def delete_kept(id: str, work: Work) -> Response:
    """The registry folder is never written."""
    work.shelf.remove(id)
    return Response(status_code=204)


def _attachment(content: bytes, name: str, media_type: str) -> Response:
    return Response(content, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'})

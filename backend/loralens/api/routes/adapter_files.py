"""Adapter files: the inspector, the shelf of kept uploads, resizing and downloads."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from loralens.api import adapter_schemas as schemas
from loralens.api.answers import respond
from loralens.api.bodies import JsonRoute
from loralens.api.hub_service import Service
from loralens.api.lab import NEEDS_LAB
from loralens.api.problems import documented
from loralens.api.uploads import MAX_UPLOAD_BYTES, Upload

if TYPE_CHECKING:
    from loralens.lab.adapters.adapter import Adapter

router = APIRouter(tags=["adapters"], route_class=JsonRoute)
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


Energy = Annotated[float, Query(gt=0, le=1, description="Share that “could be rank k” must keep.")]


@router.post(
    "/adapters/inspect",
    summary="Look into an adapter without keeping it",
    dependencies=NEEDS_LAB,
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
    from loralens.lab.adapters.files import read_adapter_bytes

    return read_adapter_bytes(*upload)


def _report(adapter: Adapter, id_: str | None, energy: float) -> dict[str, Any]:
    from loralens.lab.adapters.files import weights_bytes
    from loralens.lab.adapters.inspect import inspect_adapter

    size = len(weights_bytes(adapter)) + len(adapter.config.to_json())
    return {"id": id_, **inspect_adapter(adapter, energy).to_dict(), "file_bytes": size}


def _attachment(content: bytes, name: str, media_type: str) -> Response:
    return Response(content, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'})

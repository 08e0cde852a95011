"""Uploads of adapters: two files in one multipart form, bounded while they arrive, never written under a sent name."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from loralens.core.errors import InputTooLarge, InvalidInput

OVERHEAD = 2 * 2**20
"""Room for the config, the form's boundaries and headers beside the weights."""

ADAPTERS = frozenset(
    f"/api/adapters/{name}" for name in ("inspect", "uploads", "doctor", "compare", "merge", "convert")
)
SNAPSHOTS = frozenset({"/api/explain/snapshot"})
"""Where bodies may be larger than elsewhere; the route itself stops reading at the setting's limit."""

MAX_UPLOAD_BYTES = 2**30 + OVERHEAD
"""Above every value that the setting allows."""

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"


async def read_upload(request: Request) -> tuple[bytes, bytes]:
    """The bytes of the form's two files, (config, weights).

    A part is recognised by its field (`config`, `weights`) or by the end of its file name; the name is used for
    nothing else. Large parts lie in unnamed temporary files until this returns.

    Raises:
        HTTPException: 415 another content type, 400 a form that cannot be read.
        InputTooLarge, InvalidInput: over the limit, or a file is missing.
    """
    async with parsed_form(request, files=4, fields=4) as parts:
        found: dict[str, bytes] = {}
        for name, part in parts:
            kind = _kind(name, part)
            if kind is None or isinstance(part, str):
                raise InvalidInput(
                    f"{name[:60]!r} is no file of an adapter",
                    field=name[:60],
                    hint="send two files: config and weights",
                )
            if kind in found:
                raise InvalidInput(f"{kind} was sent twice", field=kind)
            found[kind] = await part.read()
    for kind, file in (("config", CONFIG_NAME), ("weights", WEIGHTS_NAME)):
        if kind not in found:
            raise InvalidInput(f"{file} is missing", field=kind, hint="drop both files of the adapter's folder")
    return found["config"], found["weights"]


Upload = Annotated[tuple[bytes, bytes], Depends(read_upload)]


@asynccontextmanager
async def parsed_form(
    request: Request, *, files: int, fields: int, limit: int | None = None, names: str = "config and weights"
) -> AsyncIterator[list[tuple[str, UploadFile | str]]]:
    """The parts of a form, (name, file or text); the files are closed at the end.

    Args:
        request: whose body is read, up to the setting's limit.
        files: how many files there may be.
        fields: how many texts.
        limit: bytes of the files together; that of adapters unless given.
        names: of the fields, as a refusal tells them.

    Raises:
        HTTPException: 415 another content type, 400 a form that cannot be read.
        InputTooLarge: over the limit.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, f"send the files as multipart/form-data with the fields {names}")
    limit = (request.app.state.settings.max_adapter_bytes if limit is None else limit) + OVERHEAD
    try:
        stream = _bounded(request.stream(), limit)
        form = await MultiPartParser(request.headers, stream, max_files=files, max_fields=fields).parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message[:200]}") from None
    parts = form.multi_items()
    try:
        yield parts
    finally:
        for _, part in parts:
            if isinstance(part, UploadFile):
                await part.close()


def _kind(name: str, part: UploadFile | str) -> str | None:
    file = part.filename or "" if isinstance(part, UploadFile) else ""
    if name == "config" or file.endswith(CONFIG_NAME):
        return "config"
    return "weights" if name == "weights" or file.endswith(".safetensors") else None


async def _bounded(stream: AsyncIterator[bytes], limit: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in stream:
        received += len(chunk)
        if received > limit:
            raise InputTooLarge(f"the upload is larger than {limit} bytes", field="file")
        yield chunk

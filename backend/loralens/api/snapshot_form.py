"""A memory snapshot as it is sent: a file and, as JSON, the set-up."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from tempfile import NamedTemporaryFile
from typing import Any, Final

from fastapi import Request
from starlette.datastructures import UploadFile

from loralens.api.uploads import parsed_form
from loralens.core.errors import InvalidInput
from loralens.endpoints.reading import NotJson, read_object

FIELDS: Final = ("snapshot", "set_up")


@asynccontextmanager
async def sent_snapshot(request: Request) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
    """Path of an own file with the snapshot's bytes, which is gone afterwards, and the set-up.

    Raises:
        HTTPException: 415 another content type, 400 a form that cannot be read.
        InputTooLarge, InvalidInput: over the limit; a field is missing, sent twice or unknown; the set-up is no JSON object.
    """
    settings = request.app.state.settings
    async with parsed_form(
        request, files=1, fields=1, limit=settings.max_snapshot_bytes, names=" and ".join(FIELDS)
    ) as parts:
        found: dict[str, UploadFile | str] = {}
        for name, part in parts:
            if name not in FIELDS or name in found:
                raise InvalidInput(
                    f"the form has {name[:60]!r} twice" if name in found else f"unknown field {name[:60]!r}",
                    field=name[:60],
                    hint="send the file as snapshot and, where it is known, the set-up as JSON in set_up",
                )
            found[name] = part
        snapshot, written = found.get("snapshot"), found.get("set_up", "{}")
        if not isinstance(snapshot, UploadFile) or not isinstance(written, str):
            raise InvalidInput(
                "snapshot must be a file, and set_up text",
                field="snapshot",
                hint="send the file that torch.cuda.memory._dump_snapshot wrote",
            )
        try:
            set_up = read_object(written.encode(), settings.max_depth)
        except NotJson as error:
            raise InvalidInput(f"set_up: {error}", field="set_up") from None
        with NamedTemporaryFile(prefix="loralens-snapshot-") as own:
            await asyncio.to_thread(shutil.copyfileobj, snapshot.file, own, 1 << 20)
            await asyncio.to_thread(own.flush)
            yield own.name, set_up

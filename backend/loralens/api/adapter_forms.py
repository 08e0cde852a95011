"""Forms with one adapter or several: files, or ids of kept ones. The files lie in a folder while they are looked into."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Final

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from loralens.api.uploads import parsed_form
from loralens.core.errors import InvalidInput
from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE
from loralens.lab.adapters.scratch import scratch_folder
from loralens.lab.adapters.shelf import Shelf

MOST_ADAPTERS: Final = 8
"""In one form; the command line merges more."""
_FIELD: Final = re.compile(r"(config|weights|id)(?:_([2-8]))?")
_WEIGHTS: Final = (WEIGHTS_FILE, "adapters.safetensors", "pytorch_lora_weights.safetensors", "adapter_0.safetensors")
"""Names that say who wrote a file. Any other is read under the first, and no sent name becomes a path."""


@dataclass(slots=True)
class Given:
    """One adapter of a form: its files, or the id of a kept one."""

    config: IO[bytes] | None = None
    weights: IO[bytes] | None = None
    weights_name: str = WEIGHTS_FILE
    id: str | None = None


@dataclass(slots=True)
class AdapterForm:
    """The adapters of a form in their order, and the config.json of a base, if one was sent."""

    adapters: list[Given] = field(default_factory=list)
    base_config: bytes | None = None

    @contextmanager
    def folders(self, root: Path, shelf: Shelf, *, whole: bool, least: int = 1, most: int = 1) -> Iterator[list[str]]:
        """A folder for each adapter; those of files are below `root` and gone at the end.

        Args:
            root: where the folders are made.
            shelf: where ids are looked up.
            whole: refuse an adapter without its config or its weights.
            least: how many adapters there must be.
            most: how many there may be.

        Raises: `InvalidInput` for too many or too few, or a file that is missing; `NotFound` for an id.
        """
        if not least <= len(self.adapters) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise InvalidInput(
                f"{len(self.adapters)} adapters were sent, {wanted} are wanted",
                field="weights",
                hint="fields config and weights, or id; for further adapters config_2, weights_2 …",
            )
        with scratch_folder(root, "arriving") as below:
            yield [
                str(shelf.folder(one.id) if one.id is not None else _written(one, below / str(number), whole))
                for number, one in enumerate(self.adapters, 1)
            ]


def _written(one: Given, folder: Path, whole: bool) -> Path:
    if whole and (one.config is None or one.weights is None):
        missing = CONFIG_FILE if one.config is None else WEIGHTS_FILE
        raise InvalidInput(f"{missing} is missing", field="weights", hint="drop both files of the adapter's folder")
    folder.mkdir()
    for name, file in ((CONFIG_FILE, one.config), (one.weights_name, one.weights)):
        if file is not None:
            with (folder / name).open("wb") as written:
                shutil.copyfileobj(file, written, 2**20)
    return folder


async def read_form(request: Request) -> AsyncGenerator[AdapterForm]:
    """The form; its parts lie in unnamed temporary files until the answer is made.

    Raises: as `parsed_form`, and `InvalidInput` for a field that is none of an adapter's.
    """
    async with parsed_form(request, files=2 * MOST_ADAPTERS + 1, fields=MOST_ADAPTERS) as parts:
        found: dict[int, Given] = {}
        form = AdapterForm()
        for name, part in parts:
            match = _FIELD.fullmatch(name)
            if name == "base_config" and isinstance(part, UploadFile):
                form.base_config = await part.read()
            elif match is None or isinstance(part, str) != (match[1] == "id"):
                raise InvalidInput(
                    f"{name[:60]!r} is no field of an adapter", field=name[:60],
                    hint="config and weights are files, id is text; config_2, weights_2, id_2 … for further adapters",
                )  # fmt: skip
            else:
                _put(found.setdefault(int(match[2] or 1), Given()), match[1], part)
        form.adapters = [found[number] for number in sorted(found)]
        yield form


def _put(one: Given, kind: str, part: Any) -> None:
    if getattr(one, kind) is not None or (one.id is not None or (kind == "id" and (one.config or one.weights))):
        raise InvalidInput(f"{kind} was sent twice, or an id beside files", field=kind)
    if kind == "id":
        one.id = str(part)
        return
    if kind == "weights":
        sent = part.filename or ""
        one.weights_name = next((name for name in _WEIGHTS if sent.endswith(name)), WEIGHTS_FILE)
    setattr(one, kind, part.file)


Form = Annotated[AdapterForm, Depends(read_form)]


def documented_form(most: int, *, base: bool = False) -> dict[str, object]:
    """The form in the schema, for `openapi_extra`."""
    file, text = {"type": "string", "format": "binary"}, {"type": "string", "maxLength": 300}
    properties: dict[str, object] = {}
    for number in range(1, most + 1):
        end = "" if number == 1 else f"_{number}"
        properties |= {f"config{end}": file, f"weights{end}": file, f"id{end}": text}
    if base:
        properties["base_config"] = file
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {
        "requestBody": {
            "required": True,
            "description": "Each adapter as two files, config and weights, or as the id of a kept one; safetensors only; all "
            "together at most LORALENS_MAX_ADAPTER_BYTES. Nothing is kept.",
            "content": {"multipart/form-data": {"schema": schema}},
        }
    }

"""Adapters that people bring are read and decomposed in a process of their own, one at a time, within a deadline.

So the process that answers imports no torch for it, a header made to be slow costs it nothing, and a decomposition that
takes too long is ended.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Final

from fastapi import Depends, Request

from loralens.api.adapter_forms import AdapterForm
from loralens.core.errors import Unavailable
from loralens.core.jsontext import to_json
from loralens.installation.state import require
from loralens.jobs.local import LocalRunner
from loralens.jobs.model import JobSpec
from loralens.jobs.runner import JobCancelled
from loralens.lab.adapters.scratch import scratch_folder
from loralens.lab.adapters.shelf import Shelf
from loralens.settings import Settings

MODULE: Final = "loralens.lab.adapters.looking"
SEVERAL: Final = "loralens.lab.adapters.several"
MAX_WAITING: Final = 8
SECONDS: Final = 30.0
"""Assumption: as long as anyone waits for a page; rank 256 of a 7B model takes a tenth of it on two cores."""
START_SECONDS: Final = 120.0
"""Importing torch, once, on the slowest machine (assumption)."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a function answered, and the archive of what it wrote; `archive` is at its beginning and has no name."""

    answer: dict[str, object]
    archive: IO[bytes]

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return os.fstat(self.archive.fileno()).st_size


class AdapterWork:
    """The process and its queue."""

    def __init__(self, settings: Settings) -> None:
        self._state = settings.state_directory()
        self._registry = settings.adapters_dir
        self._runner = LocalRunner()
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_WAITING)
        self.shelf = Shelf(self._state / "adapters", self._registry)

    def close(self) -> None:
        """End the process."""
        self._runner.close()

    def of_upload(self, function: str, upload: tuple[bytes, bytes], **spec: Any) -> Any:
        """Run a function of `looking` on two files that lie in a temporary folder meanwhile.

        Raises:
            OSError: they cannot be written.
        """
        (self._state / "adapters").mkdir(parents=True, exist_ok=True)  # said here, where a full disk has words
        with scratch_folder(self._state, "arriving") as folder:
            for name, content in zip(("config", "weights"), upload, strict=True):
                (folder / name).write_bytes(content)
            return self.run(f"{MODULE}:{function}", {"upload": str(folder), **spec})

    def of_form(
        self, function: str, form: AdapterForm, spec: Mapping[str, Any], *, whole: bool, least: int = 1, most: int = 1
    ) -> Any:
        """Run a function of `several` on the adapters of a form; see `AdapterForm.folders`."""
        with form.folders(self._state, self.shelf, whole=whole, least=least, most=most) as folders:
            return self.run(f"{SEVERAL}:{function}", {"folders": folders, **spec})

    def made(
        self, function: str, form: AdapterForm, spec: Mapping[str, Any], *, whole: bool, least: int = 1, most: int = 1
    ) -> Made:
        """The same for a function that writes a folder: its answer, and the folder as an archive in an unnamed file."""
        with scratch_folder(self._state, "making") as below:
            output = below / "adapter"
            given = {"output": str(output), **spec}
            answer = self.of_form(function, form, given, whole=whole, least=least, most=most)
            return Made(answer, _zipped(output, answer, self._state))

    def of_kept(self, function: str, id_: str, **spec: Any) -> Any:
        """Run a function of `looking` on an adapter of the shelf."""
        self.shelf.folder(id_)  # a wrong id is said without a process
        return self.run(f"{MODULE}:{function}", {"id": id_, **spec})

    def run(self, function: str, spec: Mapping[str, Any], seconds: float = SECONDS) -> Any:
        """The `answer` of the function's result.

        Raises:
            Unavailable: too many wait, or it takes too long.
            LoraLensError: what the function raised.
        """
        require(self._state)
        if not self._places.acquire(blocking=False):
            raise Unavailable(f"{MAX_WAITING} adapters are being looked into already", hint="ask again in a while")
        try:
            with self._turn:
                return self._follow(function, spec, seconds)
        finally:
            self._places.release()

    def _follow(self, function: str, spec: Mapping[str, Any], seconds: float) -> Any:
        registry = None if self._registry is None else str(self._registry)
        places = {"state": str(self._state / "adapters"), "registry": registry}
        deadline = time.monotonic() + START_SECONDS
        answer = None
        begun = False
        try:
            for event in self._runner.start(JobSpec("adapter", function, {**places, **spec})):
                if event is not None and not begun:
                    begun, deadline = True, time.monotonic() + seconds
                if event is not None and event["type"] == "result":
                    answer = event["answer"]
                elif time.monotonic() > deadline:
                    self._runner.cancel()
        except JobCancelled:
            raise Unavailable(
                f"this adapter takes longer than {seconds:g} seconds",
                hint="the same command of loralens adapter takes as long as it needs",
            ) from None
        return answer


def _zipped(folder: Path, answer: dict[str, object], below: Path) -> IO[bytes]:
    file: IO[bytes] = tempfile.TemporaryFile(dir=below)  # noqa: SIM115  # the response closes it
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"adapter/{path.name}")
        archive.writestr("report.json", to_json(answer))
    file.seek(0)
    return file


def adapter_work(request: Request) -> AdapterWork:
    """The server's one."""
    work: AdapterWork = request.app.state.adapter_work
    return work


Work = Annotated[AdapterWork, Depends(adapter_work)]

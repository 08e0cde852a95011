"""Adapters that people bring are read and decomposed in a process of their own, one at a time, within a deadline.

So the process that answers imports no torch for it, a header made to be slow costs it nothing, and a decomposition that
takes too long is ended.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Depends, Request

from loralens.core.errors import Unavailable
from loralens.installation.state import require
from loralens.jobs.local import LocalRunner
from loralens.jobs.model import JobSpec
from loralens.jobs.runner import JobCancelled
from loralens.lab.adapters.shelf import Shelf
from loralens.settings import Settings

MODULE: Final = "loralens.lab.adapters.looking"
MAX_WAITING: Final = 8
SECONDS: Final = 30.0
"""Assumption: as long as anyone waits for a page; rank 256 of a 7B model takes a tenth of it on two cores."""
START_SECONDS: Final = 120.0
"""Importing torch, once, on the slowest machine (assumption)."""


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
        (self._state / "adapters").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="arriving-", dir=self._state) as folder:
            for name, content in zip(("config", "weights"), upload, strict=True):
                (Path(folder) / name).write_bytes(content)
            return self.run(f"{MODULE}:{function}", {"upload": folder, **spec})

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
                f"this adapter takes longer than {seconds:g} seconds to decompose",
                hint="loralens adapter inspect, or resize, takes as long as it needs",
            ) from None
        return answer


def adapter_work(request: Request) -> AdapterWork:
    """The server's one."""
    work: AdapterWork = request.app.state.adapter_work
    return work


Work = Annotated[AdapterWork, Depends(adapter_work)]

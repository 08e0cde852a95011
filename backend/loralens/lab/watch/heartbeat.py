"""The heartbeat of a watched training: every two seconds, from a thread of its own, until the training or the program ends."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from loralens.watched import BEAT_SECONDS, WatchedBeat, forget_old, keep_beat

LOG: Final = logging.getLogger("loralens.watch")


class Heartbeat:
    """Keeps what `beat` says in `folder`; a folder that cannot be written is said once, and disturbs nothing.

    Attributes:
        seconds: what the beats have taken.
    """

    def __init__(self, folder: Path, beat: Callable[[], WatchedBeat]) -> None:
        self.seconds = 0.0
        self._folder, self._beat = folder, beat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loralens-heartbeat", daemon=True)

    def start(self) -> None:
        """The first beat, and those that follow."""
        with suppress(OSError):  # what cannot be removed cannot be written either, which the first beat says
            forget_old(self._folder)
        if self._keep():
            self._thread.start()
            atexit.register(self.stop)

    def stop(self) -> None:
        """The last beat."""
        if not self._over.is_set() and self._thread.ident is not None:
            self._over.set()
            self._thread.join()
            self._keep()
            atexit.unregister(self.stop)

    @property
    def is_over(self) -> bool:
        """Whether the beat that comes is the last one."""
        return self._over.is_set()

    def _run(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            if not self._keep():
                return

    def _keep(self) -> bool:
        started = time.thread_time()
        try:
            keep_beat(self._folder, self._beat())
        except OSError as error:
            LOG.warning("the page does not show this training: %s: %s", self._folder, error.strerror)
            return False
        self.seconds += time.thread_time() - started
        return True


def uncaught() -> str | None:
    """The error that ends this program, where it is one."""
    error = getattr(sys, "last_value", None)
    return None if error is None else text_of(error)


def text_of(error: BaseException) -> str:
    """Kind and message, within a bound that holds PyTorch's longest."""
    return f"{type(error).__name__}: {error}"[:2000]

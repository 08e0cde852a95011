"""A server that is told to stop does so in a stated time, whatever its threads are busy with."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

EXIT_SECONDS = 0.4
"""Of the time to stop, what the end of a process may take itself (assumption)."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stops_within(seconds: float) -> Iterator[None]:
    """After the first signal to stop, end the process by force when its own orderly end takes longer.

    What is under way is lost with the answer that nobody would have waited for; the job store is written so that a kill
    at any moment leaves it whole.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def deadline(number: int, frame: FrameType | None) -> None:
        timer = threading.Timer(max(0.1, seconds - EXIT_SECONDS), os._exit, [0])
        timer.daemon = True
        timer.start()
        before = earlier[number]
        if callable(before):
            before(number, frame)

    earlier: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, deadline)
    try:
        yield
    finally:
        # At the end of a process its server has put its own handlers back already.
        for number in _SIGNALS:
            if signal.getsignal(number) is deadline:
                signal.signal(number, earlier[number])

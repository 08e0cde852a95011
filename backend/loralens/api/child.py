"""What runs in a worker process of `compute`: the core alone, no web framework.

A worker ends with its server, and leaves interrupts from the terminal to it.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from typing import Any, Final

from loralens.core.errors import LoraLensError
from loralens.core.jsontext import to_json
from loralens.endpoints.table import compute, import_all

COLLECT: Final = (20_000, 10, 10)
"""When Python looks for circles. A walk makes tens of thousands of objects that live for milliseconds; to look through them at
every 700th is a tenth of its time."""
PARENT_SECONDS: Final = 1.0  # how often a worker looks whether it has become an orphan

Problem = tuple[int, str, str, str, str | None, str | None]
"""Status, code, title, message, field and hint of an error."""


def begin(niceness: int) -> None:
    """Make this process a worker; `niceness` keeps long work from those who wait for short answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(*COLLECT)
    if niceness and hasattr(os, "nice"):
        os.nice(niceness)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def answer(name: str, body: Any) -> bytes | Problem:
    """The answer as JSON, or the problem with the question."""
    try:
        return to_json(compute(name, body)).encode()
    except LoraLensError as error:
        return error.status, error.code, error.title, error.message, error.field, error.hint


def ready() -> None:
    """Nothing: a worker that can do this has imported what it needs."""
    import_all()

"""What runs in a worker process of `compute`: the core alone, no web framework.

A worker ends with its server, and leaves interrupts from the terminal to it.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from loralens.core.errors import LoraLensError
from loralens.core.jsontext import to_json
from loralens.endpoints.table import compute, compute_snapshot, import_all

COLLECT: Final = (200_000, 10, 10)
"""When Python looks for circles while it works: not within a usual walk, whose tens of thousands of objects live for
milliseconds. It looks behind each answer, when nearly all of them have gone by themselves."""
WHOLE: Final = 1024
"""Answers after which it looks through all that is there, and not only through what an answer left."""
PARENT_SECONDS: Final = 1.0  # how often a worker looks whether it has become an orphan

_answers = itertools.count(1)

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
    return _told(lambda: compute(name, body))


def snapshot(path: str, body: Any) -> bytes | Problem:
    """That of a memory snapshot, which lies in a file of the server's own; `body`: the set-up."""
    return _told(lambda: compute_snapshot(Path(path), body))


def _told(work: Callable[[], Mapping[str, object]]) -> bytes | Problem:
    try:
        return to_json(work()).encode()
    except LoraLensError as error:
        return error.status, error.code, error.title, error.message, error.field, error.hint
    finally:
        gc.collect(0 if next(_answers) % WHOLE else 2)


def ready() -> None:
    """A worker that has done this has imported what it needs; what is there then stays, and is not looked through for circles."""
    import_all()
    gc.collect()
    gc.freeze()

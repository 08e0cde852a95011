"""The process that traces where no card is seen, for a process that sees one (see `apart`).

One JSON request a line on its input, one JSON answer a line on its output, until the input ends or nothing was asked
for a while.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import IO, Any, Final

from loralens.core import errors
from loralens.lab.trace import case

IDLE_SECONDS: Final = 120.0  # to import the libraries takes some ten seconds, to keep them half a gigabyte


def _answer(request: Mapping[str, Any]) -> dict[str, object]:
    try:
        recorded, counts = case.record(request["config"], request["method"], request["recipe"], request["file"])
    except errors.LoraLensError as problem:
        told = {
            "kind": type(problem).__name__,
            "message": problem.message,
            "field": problem.field,
            "hint": problem.hint,
        }
        return {"error": told}
    return {**dataclasses.asdict(recorded), "counts": counts}


def _serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer until the input ends; whoever asked may have gone in the middle of a trace, and then nobody waits."""
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in requests:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=IDLE_SECONDS)
        except Empty:
            return
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    # libraries that print must not print between the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _serve(sys.stdin, answers)

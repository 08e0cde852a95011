"""Where torch sees a card, a trace runs in a process of its own that sees none.

Fake tensors would start the card (a context of some hundred MB, beside whatever runs there), and what a trace registers
for CUDA is not for real tensors. `python -m loralens.lab.trace.apart` is that process: one JSON request a line on its
input, one JSON answer a line on its output, until the input ends or nothing was asked for a while.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import IO, Any, Final

from loralens.core import errors
from loralens.lab.trace.ledger import Recorded, Storage

HIDDEN: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
IDLE_SECONDS: Final = 120.0  # to import the libraries takes some ten seconds, to keep them half a gigabyte
_lock = threading.Lock()
_children: list[subprocess.Popen[str]] = []


def record(config: Mapping[str, Any], method: str, recipe: Mapping[str, Any]) -> tuple[Recorded, dict[str, int]]:
    """As `case.record`, in a process without a card; it is kept for the next trace, and ends with this one.

    Raises:
        InvalidInput, UnsupportedArchitecture, DependencyMissing: as in that process.
        JobFailed: that process ended without an answer.
    """
    request = json.dumps({"config": config, "method": method, "recipe": recipe})
    with _lock:
        line = _asked(request) if _children else ""
        if not line:  # none was kept, or it had ended since
            close()
            _children.append(_started())
            line = _asked(request)
        if not line:
            child = _children[0]
            close()
            raise errors.JobFailed(
                f"the process that traces ended with {child.returncode}", hint="its words are on stderr"
            )
    return _understood(json.loads(line))


def _asked(request: str) -> str:
    """The answer's line, empty when the process has ended."""
    child = _children[0]
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(request + "\n")
        child.stdin.flush()
        return child.stdout.readline()
    except BrokenPipeError:
        return ""


@atexit.register
def close() -> None:
    """End the process that is kept, if there is one."""
    while _children:
        with _children.pop() as child:
            assert child.stdin is not None
            with suppress(BrokenPipeError):
                child.stdin.close()  # which ends it, also in the middle of a trace


def _started() -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-m", "loralens.lab.trace.apart"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, **dict.fromkeys(HIDDEN, ""), "PYTHONPATH": path},
    )


def _understood(answer: Mapping[str, Any]) -> tuple[Recorded, dict[str, int]]:
    if (told := answer.get("error")) is not None:
        kind = getattr(errors, told["kind"])
        raise kind(told["message"], field=told["field"], hint=told["hint"])
    storages = [Storage(**{**storage, "shape": tuple(storage["shape"])}) for storage in answer["storages"]]
    marks = [(phase, event) for phase, event in answer["marks"]]
    return Recorded(storages, answer["events"], marks), answer["counts"]


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    from loralens.lab.trace import case

    try:
        recorded, counts = case.record(request["config"], request["method"], request["recipe"])
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

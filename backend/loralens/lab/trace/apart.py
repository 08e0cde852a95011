"""Where torch sees a card, a trace runs in a process of its own that sees none.

Fake tensors would start the card (a context of some hundred MB, beside whatever runs there), and what a trace registers
for CUDA is not for real tensors. `python -m loralens.lab.trace.child` is that process.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from loralens.core import errors
from loralens.lab.trace.ledger import Recorded, TracedStorage

HIDDEN: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_lock = threading.Lock()
_children: list[subprocess.Popen[str]] = []


def record(
    config: Mapping[str, Any], method: str, recipe: Mapping[str, Any], file: str | None = None
) -> tuple[Recorded, dict[str, int]]:
    """As `case.record`, in a process without a card; it is kept for the next trace, and ends with this one.

    Raises:
        InvalidInput, UnsupportedArchitecture, DependencyMissing: as in that process.
        JobFailed: that process ended without an answer.
    """
    request = json.dumps({"config": config, "method": method, "recipe": recipe, "file": file})
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
        [sys.executable, "-m", "loralens.lab.trace.child"],
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
    storages = [TracedStorage(**{**storage, "shape": tuple(storage["shape"])}) for storage in answer["storages"]]
    marks = [(phase, event) for phase, event in answer["marks"]]
    parameters = [(name, tuple(shape), trains) for name, shape, trains in answer["parameters"]]
    return Recorded(storages, answer["events"], marks, parameters), answer["counts"]

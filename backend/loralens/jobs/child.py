"""The process in which jobs run: reads one line of JSON per command, writes one line of JSON per event.

`python -m loralens.jobs.child`. Commands: {"run": {"function", "spec"}}, {"cancel": true}. Answers: {"event": {…}},
{"done": true}, {"cancelled": true}, {"error": {…}}. It stays for the next job, so torch is imported once.
A thread reads the commands: when the server dies, however hard, the pipe ends and this process ends with it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from queue import SimpleQueue
from typing import IO, Any

from loralens.core.errors import JobFailed
from loralens.jobs import errors


def main() -> None:
    """Serve jobs until the other side closes the pipe."""
    # Whatever a library prints must not get between the events: they keep the old standard output to themselves.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    jobs: SimpleQueue[dict[str, Any]] = SimpleQueue()
    cancelled = threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin, jobs, cancelled), daemon=True).start()
    _say(out, {"ready": True})
    while True:
        job = jobs.get()
        _say(out, _run(job, cancelled, lambda event: _say(out, {"event": event})))
        cancelled.clear()
        gc.collect()


def _listen(commands: IO[str], jobs: SimpleQueue[dict[str, Any]], cancelled: threading.Event) -> None:
    for line in commands:
        command = json.loads(line)
        if "cancel" in command:
            cancelled.set()
        else:
            cancelled.clear()
            jobs.put(command["run"])
    os._exit(0)  # the main thread may be deep in a kernel; nothing of this process outlives its server


def _run(job: dict[str, Any], cancelled: threading.Event, tell: Callable[[Any], None]) -> dict[str, Any]:
    try:
        module, _, name = job["function"].partition(":")
        events: Iterator[Any] = getattr(import_module(module), name)(job["spec"])
        try:
            for event in events:
                tell(_checked(event))
                if cancelled.is_set():
                    return {"cancelled": True}
        finally:
            if hasattr(events, "close"):
                events.close()
    except Exception as error:
        told = errors.from_exception(error)
        if told is not error:
            traceback.print_exc()
        return {"error": errors.record(told)}
    return {"done": True}


def _checked(event: Any) -> Any:
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise JobFailed(f"a job must yield dicts with a type, got {type(event).__name__}")
    return event


def _say(out: IO[str], message: dict[str, Any]) -> None:
    out.write(json.dumps(message, allow_nan=False, ensure_ascii=False) + "\n")
    out.flush()


if __name__ == "__main__":
    main()

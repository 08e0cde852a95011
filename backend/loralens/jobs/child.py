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
from queue import SimpleQueue
from typing import IO

from loralens.jobs import work
from loralens.jobs.model import Command, RunCommand


def main() -> None:
    """Serve jobs until the other side closes the pipe."""
    # Whatever a library prints must not get between the events: they keep the old standard output to themselves.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    jobs: SimpleQueue[RunCommand] = SimpleQueue()
    cancelled = threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin, jobs, cancelled), daemon=True).start()
    _say(out, work.line({"ready": True}))
    while True:
        job = jobs.get()
        for line in work.lines(job["function"], job["spec"], cancelled.is_set):
            _say(out, line)
        cancelled.clear()
        gc.collect()


def _listen(commands: IO[str], jobs: SimpleQueue[RunCommand], cancelled: threading.Event) -> None:
    for line in commands:
        command: Command = json.loads(line)
        if "cancel" in command:
            cancelled.set()
        else:
            cancelled.clear()
            jobs.put(command["run"])
    os._exit(0)  # the main thread may be deep in a kernel; nothing of this process outlives its server


def _say(out: IO[str], line: str) -> None:
    out.write(line + "\n")
    out.flush()


if __name__ == "__main__":
    main()

"""Runs jobs in one warm child process: a crash, a kill or an out-of-memory never takes the server down."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue

from loralens.core.errors import JobFailed
from loralens.jobs import errors
from loralens.jobs.model import Command, Event, JobSpec, Message
from loralens.jobs.runner import JobCancelled
from loralens.jobs.work import Reported, python_path

GRACE_SECONDS = 1.0
"""Assumption: how long a job may take to reach its next event after a cancel, before its process is killed."""
TICK_SECONDS = 0.1


class LocalRunner:
    """One child process; started by the first job, kept warm, replaced when it dies.

    Args:
        environment: variables for the child, beside the server's own.
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        self._environment = environment or {}
        self._inherited: tuple[int, ...] = ()
        self._child: subprocess.Popen[str] | None = None
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._cancelled_at: float | None = None
        self._running = False

    @property
    def pid(self) -> int | None:
        """Process id of the child, if one lives."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def inherit(self, descriptor: int) -> None:
        """Let the child keep a lock's file open: if this process is killed, the lock holds until the child is gone."""
        self._inherited = (descriptor,)

    def start(self, spec: JobSpec) -> Iterator[Event | None]:
        """See `Runner.start`."""
        with self._lock:
            self._cancelled_at = None
            self._running = True
            child, lines = self._warm_child()
            sent = self._send({"run": {"function": spec.function, "spec": dict(spec.spec)}})
        try:
            if not sent:
                raise errors.from_exit(self._reap(child))
            yield from self._follow(child, lines)
        finally:
            with self._lock:
                self._running = False

    def cancel(self) -> None:
        """See `Runner.cancel`."""
        with self._lock:
            if self._running and self._cancelled_at is None:
                self._cancelled_at = time.monotonic()
                self._send({"cancel": True})

    def close(self) -> None:
        """Kill the child."""
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._reap(self._child)

    def _follow(self, child: subprocess.Popen[str], lines: SimpleQueue[str | None]) -> Iterator[Event | None]:
        while True:
            try:
                line = lines.get(timeout=TICK_SECONDS)
            except Empty:
                if self._cancelled_at is not None and time.monotonic() - self._cancelled_at > GRACE_SECONDS:
                    child.kill()
                    self._reap(child)
                    raise JobCancelled from None
                yield None
                continue
            if line is None:
                code = self._reap(child)
                if self._cancelled_at is not None:
                    raise JobCancelled
                raise errors.from_exit(code)
            try:
                message: Message = json.loads(line)
            except ValueError:  # the process died in the middle of a line; its exit code follows
                continue
            if "event" in message:
                yield message["event"]
            elif "error" in message:
                if errors.is_fatal(message["error"]):
                    child.kill()
                    self._reap(child)
                raise Reported(message["error"])
            elif "cancelled" in message:
                raise JobCancelled
            elif "done" in message:
                return

    def _warm_child(self) -> tuple[subprocess.Popen[str], SimpleQueue[str | None]]:
        if self._child is not None and self._child.poll() is None:
            return self._child, self._lines
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "loralens.jobs.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env={**os.environ, **self._environment, "PYTHONPATH": python_path()},
                # Ctrl-C in the terminal is for the server; it ends the child in its own order.
                start_new_session=True,
                pass_fds=self._inherited,
            )
        except OSError as error:
            raise JobFailed(f"no process could be started for the job: {error}") from None
        self._child, self._lines = child, SimpleQueue()
        threading.Thread(target=_pump, args=(child, self._lines), daemon=True).start()
        return child, self._lines

    def _send(self, command: Command) -> bool:
        child = self._child
        if child is None or child.stdin is None:
            return False
        try:
            child.stdin.write(json.dumps(command) + "\n")
            child.stdin.flush()
        except (OSError, ValueError):  # it died; the end of its output says so too
            return False
        return True

    def _reap(self, child: subprocess.Popen[str]) -> int | None:
        try:
            code = child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
        return code


def _pump(child: subprocess.Popen[str], lines: SimpleQueue[str | None]) -> None:
    assert child.stdout is not None
    with child.stdout:
        for line in child.stdout:
            lines.put(line)
    lines.put(None)

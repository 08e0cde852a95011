"""Installs the lab: runs pip, and tells the terminal and the state folder how far it is.

`python -m loralens.installation.run --log FILE -- COMMAND…`; the command runs pip with `--progress-bar raw`. It ends
with the process that started it: an installation behind a server goes no further than the server.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import IO

from loralens.installation import state
from loralens.settings import Settings

TICK_SECONDS = 0.5
SAY_SECONDS = 30
_FILE = re.compile(r"\s*Downloading (\S+?)(?: \([\d.]+ \w+\))?$")
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_UNREACHABLE = ("Failed to establish a new connection", "NameResolutionError", "Network is unreachable",
                "ReadTimeoutError", "ConnectTimeoutError", "Read timed out", "ConnectionResetError",
                "IncompleteRead", "Connection refused", "ProxyError", "HTTP error 403", "403 Client Error")  # fmt: skip
_ERROR = re.compile(r"ERROR: (.+)")


class Output:
    """What pip prints, line by line: how far it is, and why it fails."""

    def __init__(self, started_seconds: float) -> None:
        self.progress = state.InstallProgress(started_seconds=started_seconds)
        self._finished_bytes = 0
        self._error: str | None = None
        self._unreachable = False

    def line(self, text: str) -> None:
        """Take in one line."""
        if found := _PROGRESS.match(text):
            done, total = int(found[1]), int(found[2])
            self.progress = replace(
                self.progress, downloaded_bytes=self._finished_bytes + done, file_bytes=done, file_total_bytes=total
            )
        elif found := _FILE.match(text):
            self._finished_bytes = self.progress.downloaded_bytes
            name = re.sub(r"(-[^-]+)?-[^-]+-[^-]+-[^-]+\.whl(\.metadata)?$", "", found[1].rpartition("/")[2])
            self.progress = replace(self.progress, phase="downloading", file=name, file_bytes=0, file_total_bytes=None)
        elif text.startswith("Installing collected packages"):
            self.progress = replace(self.progress, phase="unpacking", file=None, file_bytes=None, file_total_bytes=None)
        elif found := _ERROR.match(text):
            self._error = found[1]
        if any(words in text for words in _UNREACHABLE):
            self._unreachable = True

    def failed(self, code: int) -> state.InstallProgress:
        """Why pip ended with an exit code."""
        error = (self._error or f"pip ended with exit code {code}")[:200]
        failure: state.Failure = "other"
        reason = error
        if "No space left on device" in error:
            failure, reason = "disk_full", "the disk is full"
        elif self._unreachable:
            failure, reason = "unreachable", f"the package index could not be reached, or refused ({error})"
        elif "No matching distribution found for torch" in error:
            failure, reason = "no_build", f"no build of PyTorch is offered for this machine ({error})"
        return replace(self.progress, failure=failure, reason=reason)


def install(command: list[str], folder: Path, log: Path, started_by: int) -> int:
    """Run pip to its end, or to that of the process that started this one; returns 0 when all is there."""
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    ours = state.lock(folder)
    while not ours.acquire():
        time.sleep(0.05)  # somebody who only looks has it for a moment
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopped.set())
    output = Output(time.time())
    told = output.progress  # before anything is read: what comes first must not count as told
    state.write(folder, told)
    with log.open("w", encoding="utf-8") as file:
        # What ./start.sh has opened stays open in pip, since its lock is there. A session of its own, so that pip ends
        # with all that it has started, and by this process alone.
        pip = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", close_fds=False, start_new_session=True,
        )  # fmt: skip
        assert pip.stdout is not None
        reader = threading.Thread(target=_read, args=(pip.stdout, file, output), daemon=True)
        reader.start()
        said_at = time.monotonic()
        while pip.poll() is None and not stopped.wait(TICK_SECONDS):
            if os.getppid() != started_by:
                stopped.set()
            if output.progress != told:
                told = output.progress
                state.write(folder, told)
            if time.monotonic() - said_at >= SAY_SECONDS:
                said_at = time.monotonic()
                print(f"  … the lab: {_said(told)}", flush=True)
        _end(pip)
        reader.join(timeout=5)
    return _close(pip.returncode, stopped.is_set(), output, folder, log)


def _read(lines: IO[str], log: IO[str], output: Output) -> None:
    for line in lines:
        if not line.startswith("Progress "):
            log.write(line)
            log.flush()
        output.line(line.rstrip())


def _said(progress: state.InstallProgress) -> str:
    if progress.phase == "unpacking":
        return "unpacking"
    return f"{progress.downloaded_bytes // 10**6} MB downloaded" + (f", now {progress.file}" if progress.file else "")


def _end(pip: subprocess.Popen[str]) -> None:
    """End pip, if it still runs, and what it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if pip.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pip.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            pip.wait(timeout=5)


def _close(code: int, stopped: bool, output: Output, folder: Path, log: Path) -> int:
    """Say how it ended, here and in the state folder."""
    if code == 0:
        state.forget(folder)
        seconds = time.time() - output.progress.started_seconds
        print(f"The lab is ready after {seconds:.0f} s more; the page has it by itself.", flush=True)
        return 0
    if stopped:
        state.write(folder, replace(output.progress, failure="stopped"))
        return 1
    failed = output.failed(code)
    state.write(folder, failed)
    print(
        f"error: the lab could not be installed: {failed.reason}\nThe calculator goes on without it. "
        f"Try again while the page runs: ./start.sh lab (the whole output is in {log})",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    return 1


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loralens.installation.run", description=__doc__)
    parser.add_argument("--log", type=Path, required=True, help="file for pip's whole output")
    parser.add_argument("--started-by", type=int, help="end when this is no longer the parent")
    parser.add_argument("command", nargs="+", help="pip, after --")
    words = parser.parse_args()
    return install(words.command, Settings().state_directory(), words.log, words.started_by or os.getppid())


if __name__ == "__main__":
    sys.exit(main())

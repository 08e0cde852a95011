"""Jobs while their processes and servers are killed: nothing finished or waiting is lost, no device is held twice.

    python benchmarks/killed_jobs.py --jobs 100 --seed 1

Each job takes a lock of its own on one file: a second holder would be seen at once. At random moments the job's process
or the whole server is killed with SIGKILL, and a new server goes on. POSIX only.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loralens.jobs.manager import JobManager
from loralens.jobs.store import JobStore

HERE = Path(__file__).resolve()


def held(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A job of some steps that holds the device; runs in the job's process."""
    with Path(spec["device"]).open("a", encoding="utf-8") as device:
        try:
            fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            Path(spec["twice"]).touch()
        for step in range(spec["steps"]):
            yield {"type": "progress", "step": step, "pid": os.getpid()}
            time.sleep(0.02)
    yield {"type": "result", "number": spec["number"]}


def serve(state: str, jobs: int, seed: int) -> None:
    """One server: it submits what nobody has submitted yet, prints its job process's id, and runs until it is killed."""
    manager = JobManager(Path(state), max_waiting=10 * jobs)
    manager.start()
    chosen = random.Random(seed)
    for number in range(len(manager.jobs(limit=10 * jobs)), jobs):
        spec = {
            "number": number,
            "steps": chosen.randint(1, 10),
            "device": f"{state}/device",
            "twice": f"{state}/twice",
        }
        manager.submit("chaos", "killed_jobs:held", spec)
    while True:
        print(manager.runner_pid() or 0, flush=True)
        time.sleep(0.05)


def main() -> None:
    """Kill until every job has ended; print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--serve")
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve, given.jobs, given.seed)
    with tempfile.TemporaryDirectory() as state:
        sys.exit(not _killed(state, given.jobs, given.seed))


def _killed(state: str, jobs: int, seed: int) -> bool:
    chosen, kills, finished = random.Random(seed), Counter[str](), dict[str, Any]()
    path = os.pathsep.join([str(HERE.parent), *sys.path])
    command = [sys.executable, str(HERE), "--serve", state, "--jobs", str(jobs), "--seed", str(seed)]
    watcher = None
    while True:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        ) as server:
            assert server.stdout is not None
            child = int(server.stdout.readline())
            for _ in range(chosen.randint(5, 60)):
                child = int(server.stdout.readline()) or child
                if child and chosen.random() < 0.05:
                    kills["child"] += _kill(child)
            kills["server"] += _kill(server.pid)
        watcher = watcher or JobStore(Path(state) / "jobs.sqlite")  # a manager would run the jobs itself
        found = watcher.jobs(limit=10 * jobs)
        lost = [id_ for id_, result in finished.items() if watcher.last_of_type(id_, "result") != result]
        finished |= {job.id: watcher.last_of_type(job.id, "result") for job in found if job.status == "finished"}
        if lost:
            print(f"NOT as promised: {len(lost)} finished results lost")
            return False
        if len(found) == jobs and not any(job.active for job in found):
            break
        if len(found) == jobs and not any(job.status == "queued" for job in found):
            break
    statuses = Counter(job.status for job in found)
    begun = all(job.started_seconds is not None for job in found)
    numbers = sorted(job.spec["number"] for job in found)
    twice = Path(state, "twice").exists()
    watcher.close()
    print(f"seed {seed}, {jobs} jobs, killed {dict(kills)}: {dict(statuses)}")
    print(f"every job began once: {begun and numbers == list(range(jobs))}; device held twice: {twice}")
    return begun and numbers == list(range(jobs)) and not twice


def _kill(process: int) -> bool:
    try:
        os.kill(process, 9)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()

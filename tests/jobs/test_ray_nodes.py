"""Two machines of a Ray cluster, both on loopback: jobs of two servers run at the same time, one on each."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loralens.jobs.choice import new_runner
from loralens.jobs.manager import JobManager

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT / "backend"), str(ROOT / "tests" / "jobs"), *sys.path]),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # the server sets 0 for its own cluster of one node
}
SIZE = ["--num-cpus", "1", "--object-store-memory", str(100 * 2**20), "--node-ip-address", "127.0.0.1"]


def node(log: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *SIZE, *words]
    with log.open("wb") as file:
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=file, stderr=file, start_new_session=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A cluster of two nodes with one processor each: its address, and what runs the nodes."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: LORALENS_EXTRAS=cluster ./start.sh lab")
    logs = tmp_path_factory.mktemp("ray")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    nodes = [node(logs / "head.log", "--head", "--port", str(port), "--include-dashboard", "false")]
    try:
        wait_for(logs / "head.log", "Ray runtime started", nodes[0])
        nodes.append(node(logs / "second.log", "--address", f"127.0.0.1:{port}"))
        wait_for(logs / "second.log", "Ray runtime started", nodes[1])
        yield f"127.0.0.1:{port}", nodes
    finally:
        for process in reversed(nodes):  # a node that is asked to end drains for up to 30 s
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(log: Path, words: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while words not in log.read_text(errors="replace"):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
        time.sleep(0.1)


@pytest.fixture
def managers(cluster, tmp_path) -> Iterator[list[JobManager]]:
    """Of two servers."""
    found = [JobManager(tmp_path / name, new_runner=new_runner("ray", cluster[0])) for name in ("one", "two")]
    for manager in found:
        manager.start()
    try:
        yield found
    finally:
        for manager in found:
            manager.close()


def test_two_jobs_run_on_two_nodes_at_the_same_time(managers, wait, tmp_path):
    # Each waits for the other: neither could end if one node ran them one after the other.
    jobs = [
        manager.submit("test", "job_functions:meeting", {"folder": str(tmp_path), "name": name, "wait_for": other})
        for manager, name, other in zip(managers, ("a", "b"), ("b", "a"), strict=True)
    ]
    ended = [wait(manager, job.id, seconds=90) for manager, job in zip(managers, jobs, strict=True)]
    assert [job.status for job in ended] == ["finished", "finished"], [job.error for job in ended]
    nodes = {manager.result(job.id)["node"] for manager, job in zip(managers, jobs, strict=True)}
    assert len(nodes) == 2


def test_a_node_that_is_killed_ends_its_own_job_and_what_that_told_is_kept(cluster, managers, wait):
    """The last one: the second node does not come back."""
    _, nodes = cluster
    jobs = [
        wait(m, m.submit("test", "job_functions:endless", {}).id, lambda job: job.last_event >= 5, 90) for m in managers
    ]
    os.killpg(nodes[1].pid, signal.SIGKILL)
    deadline = time.monotonic() + 90
    while all(manager.job(job.id).active for manager, job in zip(managers, jobs, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    here = [manager.job(job.id) for manager, job in zip(managers, jobs, strict=True)]
    dead = next(number for number, job in enumerate(here) if not job.active)
    ended, survivor = here[dead], managers[1 - dead]
    assert (ended.status, ended.error["code"]) == ("failed", "job_failed")
    assert "died" in ended.error["detail"]
    told = managers[dead].events(ended.id, limit=ended.last_event)
    assert [event.data["number"] for event in told] == list(range(1, ended.last_event + 1))
    assert ended.last_event >= 5
    before = survivor.job(jobs[1 - dead].id).last_event
    wait(survivor, jobs[1 - dead].id, lambda job: job.last_event > before)
    survivor.cancel(jobs[1 - dead].id)
    assert wait(survivor, jobs[1 - dead].id).status == "cancelled"
    next_one = managers[dead].submit("test", "job_functions:counting", {"count": 3})
    assert wait(managers[dead], next_one.id, seconds=60).status == "finished"

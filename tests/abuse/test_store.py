"""The job store under threads that come and go, on a damaged disk, and over servers that are killed."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from loralens.core.errors import JobNotFound
from loralens.jobs.database import MAX_CONNECTIONS, StoreDamaged
from loralens.jobs.locks import FileLock
from loralens.jobs.manager import JobManager
from loralens.jobs.model import JobEvent, JobSpec
from loralens.jobs.store import JobStore

HERE = Path(__file__).resolve().parent
SERVER = """
import sys
from pathlib import Path
from loralens.jobs.manager import JobManager
manager = JobManager(Path(sys.argv[1]))
manager.start()
jobs = [manager.submit("test", "job_functions:" + name, {"count": 3}) for name in sys.argv[2:]]
while manager.job(jobs[0].id).last_event < 1:
    pass
print(*(job.id for job in jobs), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _children_find_the_jobs(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent / "jobs"))


def descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_threads_that_come_and_go_leave_no_descriptors(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite")
    store.jobs()
    gc.collect()
    before = descriptors()
    for _ in range(30):
        thread = threading.Thread(target=store.jobs)
        thread.start()
        thread.join()
    assert descriptors() <= before
    together = [threading.Thread(target=lambda: [store.jobs() for _ in range(20)]) for _ in range(40)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert descriptors() <= before + 3 * MAX_CONNECTIONS
    store.close()


def damaged_in_the_middle(folder):
    """A store of some pages whose last half was overwritten; its head is intact."""
    path = folder / "jobs.sqlite"
    store = JobStore(path)
    for _ in range(40):
        job = store.add(JobSpec("test", "m:f", {}), "me")
        store.append(job.id, [JobEvent(n, "progress", {"x": "y" * 500}, 0.0) for n in range(1, 20)])
        store.end(job.id, "finished")
    store.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    content = path.read_bytes()
    path.write_bytes(content[: 2 * 4096] + b"\xa5" * (len(content) - 2 * 4096))
    return path


def test_a_page_that_is_damaged_is_said_once_and_a_fresh_store_begun(tmp_path, caplog):
    path = damaged_in_the_middle(tmp_path)
    store, beside = JobStore(path), JobStore(path)  # a second server that has the file open
    with pytest.raises(StoreDamaged, match="set aside"):
        store.jobs(limit=200)
    assert store.jobs() == [] == beside.jobs()
    job = store.add(JobSpec("test", "m:f", {}), "me")
    assert beside.job(job.id).id == job.id
    assert len([file for file in tmp_path.glob("*.unreadable-*") if not file.name.endswith(("-wal", "-shm"))]) == 1
    assert "is kept as jobs.sqlite.unreadable-" in caplog.text
    store.close()
    beside.close()


def test_a_server_with_a_damaged_store_runs_jobs_again(tmp_path):
    damaged_in_the_middle(tmp_path)
    manager = JobManager(tmp_path)
    manager.start()
    try:
        for _ in range(2):
            try:
                job = manager.submit("test", "job_functions:counting", {"count": 3})
                break
            except StoreDamaged:
                continue
        pause = threading.Event()
        while manager.job(job.id).active:
            pause.wait(0.02)
        assert manager.job(job.id).status == "finished"
    finally:
        manager.close()


def test_a_job_whose_store_was_set_aside_is_ended_and_the_device_goes_on(tmp_path):
    manager = JobManager(tmp_path)
    manager.start()
    pause = threading.Event()
    try:
        lost = manager.submit("test", "job_functions:endless", {})
        while manager.job(lost.id).last_event < 1:
            pause.wait(0.01)
        for path in list(tmp_path.glob("jobs.sqlite*")):
            path.rename(tmp_path / f"away{path.name}")
        job = manager.submit("test", "job_functions:counting", {"count": 3})
        while manager.job(job.id).active:
            pause.wait(0.02)
        assert manager.job(job.id).status == "finished"
        with pytest.raises(JobNotFound):
            manager.job(lost.id)
    finally:
        manager.close()


def test_what_had_not_begun_when_the_server_was_killed_is_run_by_the_next_in_its_order(tmp_path):
    path = os.pathsep.join([*sys.path, str(HERE.parent / "jobs")])
    command = [sys.executable, "-c", SERVER, str(tmp_path), "deaf", "counting", "counting", "counting"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as server:
        running, *waiting = server.stdout.readline().split()
        server.send_signal(signal.SIGKILL)
    manager = JobManager(tmp_path)
    manager.start()
    pause = threading.Event()
    try:
        while any(manager.job(job).active for job in waiting):
            pause.wait(0.02)
        jobs = [manager.job(job) for job in waiting]
        assert manager.job(running).status == "interrupted"
        assert [job.status for job in jobs] == ["finished"] * 3
        assert [job.started_seconds for job in jobs] == sorted(job.started_seconds for job in jobs)
        assert [manager.result(job)["sum"] for job in waiting] == [3, 3, 3]
    finally:
        manager.close()


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_device_stays_held_until_the_child_of_a_dead_server_is_gone(tmp_path):
    ours = FileLock(tmp_path / "lock")
    assert ours.acquire()
    child = subprocess.Popen(["sleep", "60"], pass_fds=[ours.fileno()])
    other = FileLock(tmp_path / "lock")
    try:
        ours._file.close()  # as the end of its process would
        assert not other.acquire()
    finally:
        child.kill()
        child.wait()
    assert other.acquire()
    other.release()

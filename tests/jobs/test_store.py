import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from loralens.core.errors import JobNotFound, Unavailable
from loralens.jobs.locks import FileLock, holder_lives
from loralens.jobs.manager import JobManager
from loralens.jobs.model import JobEvent, JobSpec
from loralens.jobs.store import JobStore

WRITER = """
import sys
from pathlib import Path
from loralens.jobs.model import JobEvent, JobSpec
from loralens.jobs.store import JobStore
store = JobStore(Path(sys.argv[1]))
job = store.add(JobSpec("test", "m:f", {}), "writer")
store.start(job.id)
print(job.id, flush=True)
number = 0
while True:
    batch = [JobEvent(number + step, "progress", {"x": "y" * 100}, 0.0) for step in range(1, 51)]
    store.append(job.id, batch)
    number += 50
"""


def test_a_writer_killed_at_any_moment_leaves_whole_batches(tmp_path):
    path = tmp_path / "jobs.sqlite"
    for attempt in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        job_id = writer.stdout.readline().strip()
        store = JobStore(path)
        pause = threading.Event()
        while store.job(job_id).last_event < 100 * (attempt + 1):
            pause.wait(0.001)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        events = store.events(job_id, limit=10**6)
        assert len(events) % 50 == 0 and [event.sequence for event in events] == list(range(1, len(events) + 1))
        store.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_a_file_that_is_no_database_is_kept_aside(tmp_path, caplog):
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(b"this is not a database, " * 100)
    store = JobStore(path)
    assert store.jobs() == []
    assert [file.read_bytes()[:4] for file in tmp_path.glob("*.unreadable-*")] == [b"this"]
    store.close()


def test_a_store_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "jobs.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Unavailable, match="newer"):
        JobStore(path)


def test_history_is_listed_in_pages_and_pruned(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite")
    ids = []
    for number in range(7):
        spec = JobSpec("even" if number % 2 == 0 else "odd", "m:f", {"number": number})
        store.add(spec, "me")
        store.append(spec.id, [JobEvent(1, "result", {"n": number}, 0.0)])
        store.end(spec.id, "finished")
        ids.append(spec.id)
    assert [job.id for job in store.jobs()] == ids[::-1]
    assert [job.id for job in store.jobs(kind="even", limit=2)] == [ids[6], ids[4]]
    assert [job.id for job in store.jobs(kind="even", limit=2, before=ids[4])] == [ids[2], ids[0]]
    store.prune(keep=3)
    assert [job.id for job in store.jobs()] == ids[:3:-1]
    with pytest.raises(JobNotFound):
        store.job(ids[0])
    assert store.events(ids[0]) == []
    store.close()


def test_only_a_job_that_has_ended_is_forgotten_with_all_it_told(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite")
    job, other = (store.add(JobSpec("test", "m:f", {}), "me") for _ in range(2))
    for each in (job, other):
        store.append(each.id, [JobEvent(1, "result", {}, 0.0)])
    assert not store.forget(job.id)
    store.end(job.id, "finished")
    assert store.forget(job.id)
    assert [left.id for left in store.jobs()] == [other.id]
    assert (store.events(job.id), len(store.events(other.id))) == ([], 1)
    with pytest.raises(JobNotFound):
        store.forget(job.id)
    store.close()


def test_a_job_ends_once(tmp_path):
    store = JobStore(tmp_path / "jobs.sqlite")
    job = store.add(JobSpec("test", "m:f", {}), "me")
    assert store.end(job.id, "cancelled") and not store.end(job.id, "failed") and not store.start(job.id)
    assert store.job(job.id).status == "cancelled"
    store.close()


def test_a_lock_goes_with_its_holder(tmp_path):
    path = tmp_path / "lock"
    lock = FileLock(path)
    assert lock.acquire() and lock.acquire() and not FileLock(path).acquire()
    assert holder_lives(path)
    lock.release()
    assert not holder_lives(path) and not path.exists()


def test_runs_of_the_command_line_join_the_history(tmp_path):
    events = [{"type": "progress", "x": 1}, {"type": "result", "y": 2}]
    job_id = JobManager.record(tmp_path, "benchmark", {"rank": 8}, "cpu", events)
    manager = JobManager(tmp_path)
    manager.start()
    job = manager.job(job_id)
    assert (job.status, job.spec, job.last_event) == ("finished", {"rank": 8}, 2)
    assert json.loads(json.dumps(manager.result(job_id))) == {"y": 2}
    manager.close()

"""Jobs and their events in one SQLite file.

Write-ahead logging lets any number of readers tail a job while one writer appends. A kill at any moment leaves a
readable file: a transaction is there as a whole or not at all.
Source: sqlite.org/wal.html, "Concurrency" and "Durability"; with synchronous=NORMAL a power cut may lose the last
transactions, never the file.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loralens.core.errors import JobNotFound, Unavailable
from loralens.jobs.model import Job, JobEvent, JobSpec, Status

log = logging.getLogger("loralens.jobs")

VERSION = 1
KEPT_JOBS = 1000
"""Assumption: as much history as anyone scrolls through; older jobs go when a server starts."""

MAX_CONNECTIONS = 8
"""Open connections of one store; each has two or three file descriptors. Who finds none free waits: no query is long."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  function TEXT NOT NULL,
  spec TEXT NOT NULL,
  device TEXT NOT NULL,
  owner TEXT NOT NULL,
  status TEXT NOT NULL,
  created REAL NOT NULL,
  started REAL,
  ended REAL,
  error TEXT,
  visitor TEXT NOT NULL DEFAULT '',
  address TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS jobs_by_device ON jobs (device, status, number);
CREATE TABLE IF NOT EXISTS events (
  job TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  type TEXT NOT NULL,
  data TEXT NOT NULL,
  time REAL NOT NULL,
  PRIMARY KEY (job, sequence)
) WITHOUT ROWID;
"""
_ADDED = ("visitor", "address")
"""Columns that files of this version may lack: they came later, and no answer of an older program needs them."""
_COLUMNS = """id, kind, device, status, spec, created, started, ended, error,
  (SELECT COALESCE(MAX(sequence), 0) FROM events WHERE events.job = jobs.id),
  (SELECT COUNT(*) FROM jobs AS ahead WHERE ahead.device = jobs.device
     AND (ahead.status = 'running' OR (ahead.status = 'queued' AND ahead.number < jobs.number)))"""


class StorageFull(Unavailable):
    """The job store cannot be written: the disk is full or not writable."""

    code = "storage_full"
    title = "Job store cannot be written"


class StoreDamaged(Unavailable):
    """A page of the job store cannot be read; the file is set aside, and a fresh one begun."""

    code = "store_damaged"
    title = "Job store was damaged"


class JobStore:
    """All jobs of a state directory; safe for threads and for several processes.

    Args:
        path: the SQLite file; its folder is created.
        max_bytes: limit for the file; None leaves it to the disk.

    Raises:
        StorageFull: the folder or file cannot be written (also by every method).
        StoreDamaged: by every method, once: the next call finds a fresh, empty store.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._free: list[tuple[sqlite3.Connection, int]] = []  # with the number of the file that it has open
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(path, error) from None
        try:
            self._create()
        except StoreDamaged:  # said in the log
            self._create()

    def add(self, spec: JobSpec, owner: str) -> Job:
        """Append a job to the queue of its device."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO jobs (id, kind, function, spec, device, visitor, address, owner, status, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?)",
                (
                    *(spec.id, spec.kind, spec.function, _json(spec.spec), spec.device),
                    *(spec.visitor, spec.address, owner, time.time()),
                ),
            )
        return self.job(spec.id)

    def append(self, job_id: str, events: Iterable[JobEvent]) -> None:
        """Write a batch of events in one transaction."""
        rows = [(job_id, event.sequence, event.type, _json(event.data), event.time_seconds) for event in events]
        with self._writing() as db:
            db.executemany("INSERT INTO events (job, sequence, type, data, time) VALUES (?, ?, ?, ?, ?)", rows)

    def start(self, job_id: str) -> bool:
        """Mark a queued job as running; False if it is not queued any more (it was cancelled)."""
        with self._writing() as db:
            cursor = db.execute(
                "UPDATE jobs SET status = 'running', started = ? WHERE id = ? AND status = 'queued'",
                (time.time(), job_id),
            )
            return cursor.rowcount == 1

    def end(self, job_id: str, status: Status, error: Mapping[str, Any] | None = None) -> bool:
        """Give an active job its last state; False if it had one already."""
        with self._writing() as db:
            cursor = db.execute(
                "UPDATE jobs SET status = ?, ended = ?, error = ?, address = '' WHERE id = ? AND status IN ('queued', 'running')",
                (status, time.time(), None if error is None else _json(error), job_id),
            )
            return cursor.rowcount == 1

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            JobNotFound: no such id.
        """
        row = self._one(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,))
        if row is None:
            raise JobNotFound(
                f"no job is called {job_id[:60]!r}", field="id", hint="GET /api/jobs lists the jobs of this server"
            )
        return _job(row)

    def jobs(
        self, *, kind: str | None = None, limit: int = 50, before: str | None = None, visitor: str | None = None
    ) -> list[Job]:
        """The newest jobs first; `before` continues after the job with that id; only those of a `visitor`."""
        where, values = ["1"], list[Any]()
        if kind is not None:
            where.append("kind = ?")
            values.append(kind)
        if visitor is not None:
            where.append("visitor = ?")
            values.append(visitor)
        if before is not None:
            where.append("number < (SELECT number FROM jobs WHERE id = ?)")
            values.append(before)
        query = f"SELECT {_COLUMNS} FROM jobs WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"
        return [_job(row) for row in self._all(query, (*values, limit))]

    def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """Events of a job with a higher sequence number than `after`, oldest first."""
        rows = self._all(
            "SELECT sequence, type, data, time FROM events WHERE job = ? AND sequence > ? ORDER BY sequence LIMIT ?",
            (job_id, after, limit),
        )
        return [JobEvent(sequence, kind, json.loads(data), at) for sequence, kind, data, at in rows]

    def last_of_type(self, job_id: str, kind: str) -> JobEvent | None:
        """The newest event of one type, such as the result."""
        row = self._one(
            "SELECT sequence, type, data, time FROM events WHERE job = ? AND type = ? ORDER BY sequence DESC LIMIT 1",
            (job_id, kind),
        )
        return None if row is None else JobEvent(row[0], row[1], json.loads(row[2]), row[3])

    def active_owners(self) -> dict[str, list[str]]:
        """Owner to ids of the jobs that it has not ended."""
        found: dict[str, list[str]] = {}
        for owner, job_id in self._all(
            "SELECT owner, id FROM jobs WHERE status IN ('queued', 'running') ORDER BY number"
        ):
            found.setdefault(owner, []).append(job_id)
        return found

    def adopt(self, owner: str, new_owner: str) -> list[JobSpec]:
        """Give the jobs that `owner` has not begun to another, oldest first; each goes to one of those who ask."""
        with self._writing() as db:
            rows = db.execute(
                "UPDATE jobs SET owner = ? WHERE owner = ? AND status = 'queued'"
                " RETURNING number, kind, function, spec, device, id",
                (new_owner, owner),
            ).fetchall()
        return [
            JobSpec(kind, function, json.loads(spec), device, job_id)
            for _, kind, function, spec, device, job_id in sorted(rows, key=lambda row: int(row[0]))
        ]

    def active_specs(self, kind: str) -> list[Mapping[str, Any]]:
        """The specs of all jobs of a kind that wait or run."""
        query = "SELECT spec FROM jobs WHERE kind = ? AND status IN ('queued', 'running')"
        return [json.loads(spec) for (spec,) in self._all(query, (kind,))]

    def waiting(self, device: str) -> int:
        """How many jobs are queued or running on a device, of whichever server."""
        query = "SELECT COUNT(*) FROM jobs WHERE device = ? AND status IN ('queued', 'running')"
        return int(self._one(query, (device,))[0])

    def waiting_of(self, address: str) -> int:
        """How many jobs of one address are queued or running."""
        query = "SELECT COUNT(*) FROM jobs WHERE address = ? AND status IN ('queued', 'running')"
        return int(self._one(query, (address,))[0])

    def forget(self, job_id: str) -> bool:
        """Remove an ended job and all it told; False if it is still active.

        Raises:
            JobNotFound: no such id.
        """
        self.job(job_id)
        with self._writing() as db:
            cursor = db.execute("DELETE FROM jobs WHERE id = ? AND status NOT IN ('queued', 'running')", (job_id,))
            if cursor.rowcount == 1:
                db.execute("DELETE FROM events WHERE job = ?", (job_id,))
            return cursor.rowcount == 1

    def prune(self, keep: int = KEPT_JOBS) -> None:
        """Forget all but the newest ended jobs."""
        with self._writing() as db:
            db.execute(
                "DELETE FROM jobs WHERE status NOT IN ('queued', 'running') AND number <= "
                "(SELECT MAX(number) FROM jobs) - ?",
                (keep,),
            )
            db.execute("DELETE FROM events WHERE job NOT IN (SELECT id FROM jobs)")

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection, _ in free:
            connection.close()

    def _create(self) -> None:
        with self._using() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise Unavailable(
                    f"{self.path} was written by a newer LoRA Lens (format {version}, this one reads {VERSION})",
                    hint="update LoRA Lens, or set LORALENS_STATE_DIR to another folder",
                )
            db.executescript(_SCHEMA + f"PRAGMA user_version = {VERSION};")
            there = {row[1] for row in db.execute("PRAGMA table_info(jobs)")}
            for name in _ADDED:
                if name not in there:
                    db.execute(f"ALTER TABLE jobs ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")

    def _one(self, query: str, values: Sequence[Any]) -> Any:
        with self._using() as db:
            return db.execute(query, values).fetchone()

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._using() as db:
            return db.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._using() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk makes SQLite roll back by itself
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """A connection of the pool; what SQLite says is wrong becomes one of our own errors."""
        with self._places:
            try:
                connection, file = self._checked_out()
                damaged = False
                try:
                    yield connection
                except BaseException as error:
                    damaged = _is_damage(error)
                    raise
                finally:
                    with self._lock:
                        if damaged or self._closed:
                            connection.close()
                        else:
                            self._free.append((connection, file))
            except sqlite3.DatabaseError as error:
                if _is_damage(error):
                    raise self._set_aside(error, file) from None
                if isinstance(error, sqlite3.OperationalError):
                    raise _not_writable(self.path, error) from None
                raise

    def _checked_out(self) -> tuple[sqlite3.Connection, int]:
        """A free connection to the file that is there now: another server may have set the old one aside."""
        there = _number(self.path)
        with self._lock:
            while self._free:
                connection, file = self._free.pop()
                if file == there:
                    return connection, file
                connection.close()
        connection = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if self._max_bytes is not None:
                page = connection.execute("PRAGMA page_size").fetchone()[0]
                connection.execute(f"PRAGMA max_page_count = {max(1, self._max_bytes // page)}")
            if there is None or there != _number(self.path):
                connection.executescript(_SCHEMA + f"PRAGMA user_version = {VERSION};")
        except sqlite3.DatabaseError as error:
            connection.close()
            if _is_damage(error):
                raise self._set_aside(error, there) from None
            raise
        return connection, _number(self.path) or 0

    def _set_aside(self, error: BaseException, file: int | None) -> StoreDamaged:
        """A file that SQLite cannot read must not keep the server down: keep it beside, start afresh."""
        with self._lock:
            aside = self.path.with_name(f"{self.path.name}.unreadable-{time.time_ns()}")
            if file is not None and _number(self.path) == file:  # else another thread or server has done it
                log.error("%s cannot be read (%s); it is kept as %s", self.path, error, aside.name)
                with suppress(OSError):
                    self.path.replace(aside)
                for suffix in ("-wal", "-shm"):
                    with suppress(OSError):
                        Path(f"{self.path}{suffix}").replace(f"{aside}{suffix}")
        return StoreDamaged(
            f"the job store {self.path.name} was damaged ({error}); it was set aside, and a fresh one has begun",
            hint="start the job again; the old file is kept in the state folder",
        )


def _number(path: Path) -> int | None:
    """The file's number on its disk: another one at the same path is another file."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116  # asked before each query
    except OSError:
        return None


def _is_damage(error: BaseException) -> bool:
    # Source: sqlite.org/rescode.html; the lower byte is the primary code.
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _not_writable(path: Path, error: Exception) -> StorageFull:
    return StorageFull(
        f"the job store {path.name} cannot be written: {error}",
        hint="free some disk space, or set LORALENS_STATE_DIR to a folder that can be written",
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _job(row: Sequence[Any]) -> Job:
    job_id, kind, device, status, spec, created, started, ended, error, last_event, ahead = row
    return Job(
        id=job_id,
        kind=kind,
        device=device,
        status=status,
        spec=json.loads(spec),
        created_seconds=created,
        started_seconds=started,
        ended_seconds=ended,
        error=None if error is None else json.loads(error),
        last_event=last_event,
        place={"queued": ahead, "running": 0}.get(status),
    )

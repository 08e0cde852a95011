"""Jobs and their events in one SQLite file.

Write-ahead logging lets any number of readers tail a job while one writer appends. A kill at any moment leaves a
readable file: a transaction is there as a whole or not at all.
Source: sqlite.org/wal.html, "Concurrency" and "Durability"; with synchronous=NORMAL a power cut may lose the last
transactions, never the file.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loralens.core.errors import JobNotFound, Unavailable
from loralens.jobs.database import Database, StoreDamaged, not_writable
from loralens.jobs.model import Job, JobEvent, JobSpec, Status, ToldError

VERSION = 1
KEPT_JOBS = 1000
"""Assumption: as much history as anyone scrolls through; older jobs go when a server starts."""

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
        self._database = Database(path, _prepare, max_bytes)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_writable(path, error) from None
        try:
            try:
                self._create()
            except StoreDamaged:  # said in the log
                self._create()
        except BaseException:
            self._database.close()
            raise

    def add(self, spec: JobSpec, owner: str) -> Job:
        """Append a job to the queue of its device."""
        with self._database.writing() as db:
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
        with self._database.writing() as db:
            db.executemany("INSERT INTO events (job, sequence, type, data, time) VALUES (?, ?, ?, ?, ?)", rows)

    def start(self, job_id: str) -> bool:
        """Mark a queued job as running; False if it is not queued any more (it was cancelled)."""
        with self._database.writing() as db:
            cursor = db.execute(
                "UPDATE jobs SET status = 'running', started = ? WHERE id = ? AND status = 'queued'",
                (time.time(), job_id),
            )
            return cursor.rowcount == 1

    def end(self, job_id: str, status: Status, error: ToldError | None = None) -> bool:
        """Give an active job its last state; False if it had one already."""
        with self._database.writing() as db:
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
        row = self._database.one(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,))
        if row is None:
            raise JobNotFound(
                f"no job has the id {job_id[:60]!r}", field="id", hint="GET /api/jobs lists the jobs of this server"
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
        return [_job(row) for row in self._database.all(query, (*values, limit))]

    def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[JobEvent]:
        """Events of a job with a higher sequence number than `after`, oldest first."""
        rows = self._database.all(
            "SELECT sequence, type, data, time FROM events WHERE job = ? AND sequence > ? ORDER BY sequence LIMIT ?",
            (job_id, after, limit),
        )
        return [JobEvent(sequence, kind, json.loads(data), at) for sequence, kind, data, at in rows]

    def last_of_type(self, job_id: str, kind: str) -> JobEvent | None:
        """The newest event of one type, such as the result."""
        row = self._database.one(
            "SELECT sequence, type, data, time FROM events WHERE job = ? AND type = ? ORDER BY sequence DESC LIMIT 1",
            (job_id, kind),
        )
        return None if row is None else JobEvent(row[0], row[1], json.loads(row[2]), row[3])

    def active_owners(self) -> dict[str, list[str]]:
        """Owner to ids of the jobs that it has not ended."""
        found: dict[str, list[str]] = {}
        for owner, job_id in self._database.all(
            "SELECT owner, id FROM jobs WHERE status IN ('queued', 'running') ORDER BY number"
        ):
            found.setdefault(owner, []).append(job_id)
        return found

    def adopt(self, owner: str, new_owner: str) -> list[JobSpec]:
        """Give the jobs that `owner` has not begun to another, oldest first; each goes to one of those who ask."""
        with self._database.writing() as db:
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
        return [json.loads(spec) for (spec,) in self._database.all(query, (kind,))]

    def waiting(self, device: str) -> int:
        """How many jobs are queued or running on a device, of whichever server."""
        query = "SELECT COUNT(*) FROM jobs WHERE device = ? AND status IN ('queued', 'running')"
        return int(self._database.one(query, (device,))[0])

    def waiting_of(self, address: str) -> int:
        """How many jobs of one address are queued or running."""
        query = "SELECT COUNT(*) FROM jobs WHERE address = ? AND status IN ('queued', 'running')"
        return int(self._database.one(query, (address,))[0])

    def forget(self, job_id: str) -> bool:
        """Remove an ended job and all it told; False if it is still active.

        Raises:
            JobNotFound: no such id.
        """
        self.job(job_id)
        with self._database.writing() as db:
            cursor = db.execute("DELETE FROM jobs WHERE id = ? AND status NOT IN ('queued', 'running')", (job_id,))
            if cursor.rowcount == 1:
                db.execute("DELETE FROM events WHERE job = ?", (job_id,))
            return cursor.rowcount == 1

    def prune(self, keep: int = KEPT_JOBS) -> None:
        """Forget all but the newest ended jobs."""
        with self._database.writing() as db:
            db.execute(
                "DELETE FROM jobs WHERE status NOT IN ('queued', 'running') AND number <= "
                "(SELECT MAX(number) FROM jobs) - ?",
                (keep,),
            )
            db.execute("DELETE FROM events WHERE job NOT IN (SELECT id FROM jobs)")

    def close(self) -> None:
        """Close what is open."""
        self._database.close()

    def _create(self) -> None:
        with self._database.using() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise Unavailable(
                    f"{self.path} was written by a newer LoRA Lens (format {version}, this one reads {VERSION})",
                    hint="update LoRA Lens, or set LORALENS_STATE_DIR to another folder",
                )
            _prepare(db)


def _prepare(db: sqlite3.Connection) -> None:
    db.executescript(_SCHEMA + f"PRAGMA user_version = {VERSION};")
    there = {row[1] for row in db.execute("PRAGMA table_info(jobs)")}
    for name in _ADDED:
        if name not in there:
            db.execute(f"ALTER TABLE jobs ADD COLUMN {name} TEXT NOT NULL DEFAULT ''")


def _json(value: Mapping[str, Any] | ToldError) -> str:
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

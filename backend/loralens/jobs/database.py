"""A SQLite file for threads and processes: few connections, and errors that say what to do.

Threads come and go, so a connection belongs to none of them: who needs one takes it from a small pool and puts it back.
A file that cannot be read is set aside, by whichever process finds it first, and the others follow to the fresh one.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loralens.core.errors import Unavailable

log = logging.getLogger("loralens.jobs")

MAX_CONNECTIONS = 8
"""Open connections of one store; each has two or three file descriptors. Who finds none free waits: no query is long."""


class StorageFull(Unavailable):
    """The job store cannot be written: the disk is full or not writable."""

    code = "storage_full"
    title = "Job store cannot be written"


class StoreDamaged(Unavailable):
    """A page of the job store cannot be read; the file is set aside, and a fresh one begun."""

    code = "store_damaged"
    title = "Job store was damaged"


class Database:
    """One file.

    Args:
        path: the file; its folder is there.
        prepare: makes the tables in a file that is new.
        max_bytes: limit for the file; None leaves it to the disk.
    """

    def __init__(self, path: Path, prepare: Callable[[sqlite3.Connection], None], max_bytes: int | None) -> None:
        self.path = path
        self._prepare = prepare
        self._max_bytes = max_bytes
        self._free: list[tuple[sqlite3.Connection, int]] = []  # with the number of the file that it has open
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for connection, _ in free:
            connection.close()

    def one(self, query: str, values: Sequence[Any]) -> Any:
        """The first row of a query, or None."""
        with self.using() as db:
            return db.execute(query, values).fetchone()

    def all(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        with self.using() as db:
            return db.execute(query, values).fetchall()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: as a whole or not at all."""
        with self.using() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # a full disk makes SQLite roll back by itself
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def using(self) -> Iterator[sqlite3.Connection]:
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
                    raise not_writable(self.path, error) from None
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
                self._prepare(connection)
        except BaseException as error:
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


def not_writable(path: Path, error: Exception) -> StorageFull:
    """The error for what the system or SQLite says."""
    return StorageFull(
        f"the job store {path.name} cannot be written: {error}",
        hint="free some disk space, or set LORALENS_STATE_DIR to a folder that can be written",
    )

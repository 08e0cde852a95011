"""Locks between processes that the operating system releases when their holder dies, however it dies."""

from __future__ import annotations

from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows has no fcntl: one server per state folder there
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """An advisory lock on a file; non-blocking. Source: flock(2): the lock goes with the last open descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Take the lock; False if another process (or another FileLock) holds it."""
        if self._file is not None:
            return True
        file = self.path.open("a", encoding="utf-8")
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return False
        self._file = file
        return True

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; `remove` also deletes the file, for locks that nobody else waits on."""
        if self._file is None:
            return
        if remove:
            self.path.unlink(missing_ok=True)
        self._file.close()
        self._file = None


def holder_lives(path: Path) -> bool:
    """Whether some process holds the lock of a file."""
    if not path.exists():
        return False
    lock = FileLock(path)
    if lock.acquire():
        lock.release(remove=True)
        return False
    return True

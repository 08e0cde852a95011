"""Locks between processes that the operating system releases when their holder dies, however it dies."""

from __future__ import annotations

from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows has no fcntl: one server per state folder there
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """An advisory lock on a file; non-blocking. Source: flock(2): the lock goes with the last open descriptor.

    A child process that inherits `fileno()` keeps the lock when this process dies with it, for as long as it lives.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None
        self._held = False

    def fileno(self) -> int:
        """The descriptor of the file, opened if it is not yet."""
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8")
        return self._file.fileno()

    def acquire(self) -> bool:
        """Take the lock; False if another process (or another FileLock) holds it."""
        if not self._held and fcntl is not None:
            was_open = self._file is not None
            try:
                fcntl.flock(self.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not was_open:
                    self.release()
                return False
        self._held = True
        return True

    def unlock(self) -> None:
        """Give the lock back, also where a child has inherited it; the file stays open."""
        if self._held and self._file is not None and fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._held = False

    def release(self, *, remove: bool = False) -> None:
        """Unlock and close; `remove` also deletes the file, for locks that nobody else waits on."""
        if self._file is None:
            return
        if remove:
            self.path.unlink(missing_ok=True)
        self.unlock()
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
    lock.release()
    return True


def is_held(path: Path) -> bool:
    """Whether some process holds the lock of a file; the file stays, for locks that are taken again and again."""
    try:
        with path.open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False

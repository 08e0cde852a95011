"""Folders for work in progress: removed at the end, and by the next one where a process was killed before its end."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

STALE_SECONDS: Final = 24 * 3600
"""A folder of a process that still seems to run is left alone for a day: its number may belong to another by now."""


@contextmanager
def scratch_folder(root: Path, kind: str) -> Iterator[Path]:
    """A new hidden folder below `root`, gone at the end; what killed processes left there goes first."""
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f".{kind}-*"):
        if _abandoned(left, kind):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{kind}-{os.getpid()}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path, kind: str) -> bool:
    try:
        owner = int(folder.name.removeprefix(f".{kind}-").partition("-")[0])
        age = time.time() - folder.stat().st_mtime
    except (ValueError, OSError):
        return False
    if owner == os.getpid():
        return False
    return age > STALE_SECONDS or not _runs(owner)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

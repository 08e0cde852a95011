"""Whether the lab's packages are there, and how far they are: the file `lab.json` of the state folder, written and read here.

The one who installs holds the lock of `lab.lock` as long as it works, so a file that nobody writes any more is known
as such however its writer ended. What is installed is not kept in the file: the environment itself says it.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from loralens.core.errors import DependencyMissing, LabInstalling
from loralens.extras import how_to_install
from loralens.jobs.locks import FileLock, is_held

PACKAGES = ("torch", "safetensors", "psutil")
"""What the lab cannot do without: the extra `lab`."""

Status = Literal["ready", "installing", "failed", "off", "missing"]
Phase = Literal["downloading", "unpacking"]
Failure = Literal["unreachable", "disk_full", "no_build", "stopped", "other"]


@dataclass(frozen=True, slots=True)
class InstallProgress:
    """How far an installation is, or why it ended.

    Args:
        phase: what is being done.
        downloaded_bytes: of all files so far.
        file: the file on its way, with its bytes so far and in all.
        failure, reason: why it failed, for programs and for people; None while it runs.
        started_seconds: when it began, in seconds since 1970.
    """

    phase: Phase = "downloading"
    downloaded_bytes: int = 0
    file: str | None = None
    file_bytes: int | None = None
    file_total_bytes: int | None = None
    failure: Failure | None = None
    reason: str | None = None
    started_seconds: float = 0.0


def lock(folder: Path) -> FileLock:
    """The lock that the one who installs holds."""
    return FileLock(folder / "lab.lock")


def write(folder: Path, progress: InstallProgress) -> None:
    """Replace what is known; a reader sees the old or the new, never a part."""
    new = folder / "lab.json.new"
    new.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    new.replace(folder / "lab.json")


def forget(folder: Path) -> None:
    """The installation ended well: nothing is left to say."""
    (folder / "lab.json").unlink(missing_ok=True)


def installed() -> bool:
    """Whether all packages of the lab are in this environment, whole."""
    return all(_version(name) is not None for name in PACKAGES)


def answer(folder: Path, *, wanted: bool = True) -> dict[str, Any]:
    """The answer of `GET /api/lab`.

    Args:
        folder: the state folder.
        wanted: False when the setting `lab` says that it is never to be fetched.
    """
    told = _read(folder)
    status: Status
    if is_held(folder / "lab.lock"):
        status, told = "installing", told or InstallProgress()
    elif installed():
        status, told = "ready", None
    elif not wanted:
        status, told = "off", None
    elif told is not None:
        status = "failed"
    else:
        status = "missing"
    failure, reason = None, None
    if status == "failed" and told is not None:
        failure, reason = told.failure or "stopped", told.reason or "the installation was stopped before its end"
    working = told if status == "installing" else None
    return {
        "status": status,
        "phase": working and working.phase,
        "downloaded_bytes": working and working.downloaded_bytes,
        "file": working and working.file,
        "file_bytes": working and working.file_bytes,
        "file_total_bytes": working and working.file_total_bytes,
        "seconds": round(max(0.0, time.time() - working.started_seconds), 1) if working else None,
        "failure": failure,
        "reason": reason,
        "hint": None if status in ("ready", "installing") else how_to_install("lab"),
    }


def require(folder: Path) -> None:
    """Return when the lab can be used.

    Raises:
        LabInstalling: its packages are on their way.
        DependencyMissing: they are not there; the hint says how to get them.
    """
    if "torch" in sys.modules:
        return
    now = answer(folder)
    if now["status"] == "installing":
        megabytes = now["downloaded_bytes"] // 10**6
        raise LabInstalling(
            f"the lab (PyTorch) is being installed: {now['phase']}, {megabytes} MB so far",
            hint="GET /api/lab says how far it is; try again when it is ready",
        )
    if now["status"] != "ready":
        why = f": {now['reason']}" if now["reason"] else ""
        raise DependencyMissing(f"this needs PyTorch, which is not installed{why}", hint=now["hint"])
    importlib.invalidate_caches()  # Python remembers which folders held nothing a moment ago


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _read(folder: Path) -> InstallProgress | None:
    try:
        told = json.loads((folder / "lab.json").read_text(encoding="utf-8"))
        return InstallProgress(**told)
    except (OSError, ValueError, TypeError):  # none, or of another version of this program
        return None

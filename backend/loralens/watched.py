"""Trainings that `loralens.Watch` follows: each keeps one small file in the state folder, and a server of that folder shows them.

Nothing here takes a path or a name from a client. A file is read within a bound, and counts only where it is what `Watch` writes.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypedDict

from loralens.core.errors import InvalidInput
from loralens.core.jsontext import from_json, to_json
from loralens.core.question.shapes import RecipeWords

FOLDER: Final = "watched"
BEAT_SECONDS: Final = 2.0
LOST_SECONDS: Final = 20.0
"""A training that has not been heard of for so long is lost: ten beats (assumption)."""
MOST_BYTES: Final = 65_536
MOST_RUNS: Final = 20
MOST_KEPT: Final = 100
MOST_LOOKED_AT: Final = 10_000
KEPT_SECONDS: Final = 7 * 24 * 3600.0
_NAME: Final = re.compile(r"[0-9a-f]{16}\.json")

Phase = Literal["forward", "backward", "forward_backward", "optimizer"]


class WatchedPhase(TypedDict):
    """One phase: computed beside measured."""

    phase: str
    predicted_bytes: int | None
    band_bytes: Annotated[list[int] | None, "The least and the most that is called as predicted."]
    measured_bytes: Annotated[int | None, "The most since the training began."]
    inside: Annotated[bool | None, "Whether it is within the band; null where what is measured is not tensors alone."]


class WatchedBeat(TypedDict):
    """What a training says of itself, every two seconds."""

    id: str
    model: Annotated[str | None, "Its name in the catalogue; null: a config of one's own."]
    name: str
    method: str
    recipe: Annotated[RecipeWords, "With the batch and the length of the largest step so far."]
    gpu: str | None
    meter: Annotated[str, "What is measured: allocator (tensors) or process (all of its memory)."]
    phases: list[WatchedPhase]
    phase: Annotated[Phase | None, "Where it is now; null between two steps."]
    steps: int
    step_seconds: Annotated[float | None, "What the last step took."]
    tokens_per_second: float | None
    predicted_tokens_per_second: float | None
    warnings: Annotated[list[str], "The last of the batches that will not fit."]
    warned: Annotated[int, "How many there were."]
    overhead: Annotated[float | None, "Share of the training's time that watching took."]
    started_seconds: Annotated[float, "Since 1970."]
    stepped_seconds: Annotated[float | None, "When the last step ended."]
    beat_seconds: float
    ended: Literal["finished", "failed"] | None
    failure: str | None


class WatchedRun(WatchedBeat):
    """A training as it is now."""

    status: Annotated[Literal["running", "finished", "failed", "lost"], "lost: it did not end, and is not heard of."]
    silent_seconds: Annotated[float, "Since its last beat."]
    stepping_seconds: Annotated[float | None, "Since its last step ended."]


class WatchedRuns(TypedDict):
    """The trainings of this machine, the newest first."""

    runs: list[WatchedRun]
    unreadable: Annotated[int, "Files that are not what Watch writes."]
    shown: Annotated[bool, "Whether trainings are shown: not on a server that several people use."]


def keep_beat(folder: Path, beat: WatchedBeat) -> None:
    """Write it in the place of the training's last one.

    Raises:
        OSError: the folder cannot be written.
    """
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    fresh = place / f"{beat['id']}.new"
    fresh.write_text(to_json(beat), encoding="utf-8")
    fresh.replace(place / f"{beat['id']}.json")


def forget_old(folder: Path) -> None:
    """Remove trainings that are a week old, and all but the hundred newest."""
    now = time.time()
    for number, (path, changed) in enumerate(_files(folder / FOLDER)):
        if number >= MOST_KEPT or now - changed > KEPT_SECONDS:
            path.unlink(missing_ok=True)


def watched_runs(folder: Path, is_beat: Callable[[Any], bool]) -> WatchedRuns:
    """The newest trainings, each as it is now. `is_beat`: whether what a file holds is a `WatchedBeat`."""
    now, runs, unreadable = time.time(), list[WatchedRun](), 0
    for path, _ in islice(_files(folder / FOLDER), MOST_RUNS):
        beat = _read(path)
        if beat is not None and is_beat(beat) and f"{beat['id']}.json" == path.name:
            runs.append(_now(beat, now))
        else:
            unreadable += 1
    runs.sort(key=lambda run: (run["status"] != "running", -run["started_seconds"]))
    return {"runs": runs, "unreadable": unreadable, "shown": True}


def _now(beat: WatchedBeat, now: float) -> WatchedRun:
    silent = max(0.0, now - beat["beat_seconds"])
    stepped = beat["stepped_seconds"]
    return {
        **beat,
        "status": beat["ended"] or ("lost" if silent > LOST_SECONDS else "running"),
        "silent_seconds": silent,
        "stepping_seconds": None if stepped is None else max(0.0, now - stepped),
    }


def _files(place: Path) -> Iterator[tuple[Path, float]]:
    """Files of trainings with the time of their last change, the newest first."""
    found: list[tuple[float, Path]] = []
    try:
        with os.scandir(place) as entries:
            for entry in islice(entries, MOST_LOOKED_AT):
                if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
    except OSError:  # no training was watched here yet, or a file has just gone
        pass
    for changed, path in sorted(found, reverse=True):
        yield path, changed


def _read(path: Path) -> Any:
    """What the file holds; None where it is no plain file within the bound, or no JSON."""
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(opened, "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > MOST_BYTES:
                return None
            return from_json(file.read(MOST_BYTES), parse_constant=_refused)
    except (OSError, ValueError, RecursionError, InvalidInput):
        return None


def _refused(constant: str) -> float:
    raise ValueError(constant)

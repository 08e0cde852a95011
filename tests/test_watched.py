"""Files of watched trainings: bounded, of one form, and named by nobody outside."""

from __future__ import annotations

import json
import os
import time

import pytest

from loralens.api.routes.watched import _is_beat
from loralens.core.question.recipe import Recipe
from loralens.watched import FOLDER, KEPT_SECONDS, MOST_BYTES, MOST_KEPT, MOST_RUNS, forget_old, keep_beat, watched_runs

PHASE = {"phase": "forward", "predicted_bytes": 9, "band_bytes": [8, 10], "measured_bytes": 9, "inside": True}


def beat(number=1, **changed):
    now = time.time()
    return {
        "id": f"{number:016x}", "model": "qwen2.5-0.5b", "name": "Qwen2.5-0.5B", "method": "lora", "recipe": Recipe().to_dict(),
        "gpu": None, "meter": "allocator", "phases": [PHASE], "phase": "forward", "steps": 3, "step_seconds": 0.5,
        "tokens_per_second": 10.0, "predicted_tokens_per_second": None, "warnings": [], "warned": 0, "overhead": 0.0005,
        "started_seconds": now - 60, "stepped_seconds": now - 1, "beat_seconds": now, "ended": None, "failure": None,
    } | changed  # fmt: skip


def put(folder, name, content):
    (folder / FOLDER).mkdir(exist_ok=True)
    (folder / FOLDER / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, "running"), ({"beat_seconds": time.time() - 600}, "lost"), ({"ended": "finished", "beat_seconds": 0}, "finished"),
        ({"ended": "failed", "failure": "RuntimeError: no"}, "failed"), ({"beat_seconds": time.time() + 600}, "running"),
    ],
)  # fmt: skip
def test_each_is_as_its_last_beat_says_or_lost(tmp_path, changed, status):
    keep_beat(tmp_path, beat(**changed))
    (run,) = watched_runs(tmp_path, _is_beat)["runs"]
    assert run["status"] == status
    assert run["silent_seconds"] >= 0


def test_those_that_run_come_first_and_no_more_than_are_shown(tmp_path):
    for number in range(MOST_RUNS + 5):
        keep_beat(tmp_path, beat(number, started_seconds=float(number), ended=None if number == 10 else "finished"))
        os.utime(tmp_path / FOLDER / f"{number:016x}.json", (number, number))
    runs = watched_runs(tmp_path, _is_beat)["runs"]
    assert [int(run["id"], 16) for run in runs[:3]] == [10, MOST_RUNS + 4, MOST_RUNS + 3]
    assert len(runs) == MOST_RUNS


@pytest.mark.parametrize(
    "content",
    [
        b"", b"no JSON", b"[" * 50_000, b"\xff\xfe", [], 3, {}, beat() | {"more": 1}, beat() | {"steps": "3"}, beat(2),
        json.dumps(beat()).replace("10.0", "NaN").encode(), beat() | {"name": "x" * MOST_BYTES}, beat() | {"ended": "perhaps"},
        beat() | {"phases": [{"phase": "forward"}]}, {k: v for k, v in beat().items() if k != "steps"},
    ],
)  # fmt: skip
def test_what_watch_does_not_write_is_counted_and_not_shown(tmp_path, content):
    put(tmp_path, f"{1:016x}.json", content)
    assert watched_runs(tmp_path, _is_beat) == {"runs": [], "unreadable": 1, "shown": True}


def test_other_names_links_and_pipes_are_not_opened(tmp_path):
    keep_beat(tmp_path, beat())
    place = tmp_path / FOLDER
    (place / "secret.json").write_text("{}")
    (place / f"{2:016x}.json").symlink_to(place / f"{1:016x}.json")
    (place / f"{3:016x}.json").mkdir()
    os.mkfifo(place / f"{4:016x}.json")
    answer = watched_runs(tmp_path, _is_beat)
    assert (len(answer["runs"]), answer["unreadable"]) == (1, 0)


def test_no_folder_has_no_trainings(tmp_path):
    assert watched_runs(tmp_path / "nowhere", _is_beat) == {"runs": [], "unreadable": 0, "shown": True}
    forget_old(tmp_path / "nowhere")


def test_old_ones_are_forgotten(tmp_path):
    for number in range(MOST_KEPT + 3):
        put(tmp_path, f"{number:016x}.json", beat(number))
        os.utime(tmp_path / FOLDER / f"{number:016x}.json", (time.time() - number,) * 2)
    old = tmp_path / FOLDER / f"{0:016x}.json"
    os.utime(old, (time.time() - KEPT_SECONDS - 9,) * 2)
    put(tmp_path, "notes.txt", b"mine")
    forget_old(tmp_path)
    left = {path.name for path in (tmp_path / FOLDER).iterdir()}
    assert len(left) == MOST_KEPT + 1
    assert "notes.txt" in left
    assert old.name not in left

"""A run that is killed goes on to the same final curves, whenever it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab.forgetting.resumed import PLAN

import loralens
from loralens.lab.forgetting.job import run_plan
from loralens.lab.tiny.corpus import code_corpus, prose_corpus

PROGRAM = """
import sys
from pathlib import Path
from lab.forgetting.resumed import PLAN
from loralens.lab.forgetting.job import run_plan
from loralens.lab.tiny.corpus import code_corpus, prose_corpus
for event in run_plan(PLAN, prose_corpus(), code_corpus(), Path(sys.argv[1])):
    print(event["type"], event.get("phase"), flush=True)
"""

Curves = list[tuple[Any, ...]]


def curves(events: list[dict[str, Any]]) -> Curves:
    """Order within a round may not differ either."""
    return [
        (e["phase"], e["arm"], e.get("seed"), e["step"], e["old"]["loss"], e["new"]["loss"])
        for e in events
        if e["type"] == "point"
    ]


def whole(folder: Path) -> list[dict[str, Any]]:
    return list(run_plan(PLAN, prose_corpus(), code_corpus(), folder))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Curves:
    return curves(whole(tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize(
    ("told", "times"), [("plan None", 1), ("point sweep", 3), ("point main", 12), ("spectrum None", 1)]
)
def test_killed_by_the_system(told: str, times: int, wanted: Curves, tmp_path: Path) -> None:
    """kill -9 once it has told so much, in the middle of whatever comes next: base, sweep, main runs, spectra."""
    roots = [str(Path(loralens.__file__).parents[1]), str(Path(__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        seen = 0
        while seen < times:
            line = process.stdout.readline()
            assert line, "the run ended before it was killed"
            seen += line.strip() == told
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    events = whole(tmp_path)
    assert events[0]["resumed"] is (not told.startswith("plan"))
    assert curves(events) == wanted


def test_cancelled_at_a_yield(wanted: Curves, tmp_path: Path) -> None:
    """Closed after ever more points, again and again; each time it goes on where it was."""
    for number in range(1, len(wanted), 11):
        job = run_plan(PLAN, prose_corpus(), code_corpus(), tmp_path)
        seen = 0
        for event in job:
            seen += event["type"] == "point"
            if seen == number:
                break
        job.close()
    events = whole(tmp_path)
    assert events[0]["resumed"]
    assert curves(events) == wanted


def test_a_damaged_state_is_made_anew(wanted: Curves, tmp_path: Path) -> None:
    job = run_plan(PLAN, prose_corpus(), code_corpus(), tmp_path)
    for event in job:
        if event["type"] == "point" and event["phase"] == "main":
            break
    job.close()
    states = sorted((tmp_path / "forgetting").rglob("run-*.safetensors"))
    for path in states[::2]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert curves(whole(tmp_path)) == wanted


def test_fresh_forgets_the_interrupted_run(tmp_path: Path) -> None:
    job = run_plan(PLAN, prose_corpus(), code_corpus(), tmp_path)
    for event in job:
        if event["type"] == "choice":
            break
    job.close()
    job = run_plan(PLAN, prose_corpus(), code_corpus(), tmp_path, fresh=True)
    assert next(job)["resumed"] is False
    job.close()


def test_the_announced_time_ends_training_with_all_runs_at_one_step(wanted: Curves, tmp_path: Path) -> None:
    """A deadline that has passed already: the first two rounds are done, and are those of the whole run."""
    events = list(run_plan(replace(PLAN, seconds=0), prose_corpus(), code_corpus(), tmp_path))
    assert events[-1]["stopped_early"] is True
    assert events[-1]["summary"]["step"] == 4
    assert curves(events) == [point for point in wanted if point[0] != "main" or point[3] <= 4]

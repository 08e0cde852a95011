"""The job as the server runs it; most of what it yields is tested in test_experiment.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from loralens.core.errors import InvalidInput
from loralens.lab.forgetting.job import machine, run


def test_a_bad_request_fails_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALENS_STATE_DIR", str(tmp_path))
    for spec in ({"budget": "no"}, {"old_text": "short", "new_text": "also short"}):
        with pytest.raises(InvalidInput):
            next(run(spec))
    assert not any(tmp_path.iterdir())


def test_the_plan_is_announced_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALENS_STATE_DIR", str(tmp_path))
    job = run({"budget": "quick", "seed": 3})
    plan = next(job)
    job.close()
    assert plan["budget_seconds"] == 60
    assert plan["seeds"] == [3, 4, 5]
    assert plan["base_cached"] is False
    assert plan["resumed"] is False
    assert str(tmp_path) not in str(plan)


def test_the_machine_is_named() -> None:
    assert {"processor", "cores", "torch", "python", "loralens"} <= machine().keys()

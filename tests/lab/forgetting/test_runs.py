from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from lab.forgetting.small import SMALL

from loralens.lab.forgetting.runs import Run, advance_all, measure
from loralens.lab.forgetting.source import ExperimentSource


def runs() -> list[Run]:
    return [Run("main", arm, 1e-2, 0) for arm in SMALL.arms[:3]]


def test_threads_and_company_do_not_change_a_run(source: ExperimentSource, tmp_path: Path) -> None:
    together = list(advance_all(runs(), source, SMALL, (1, 3), tmp_path / "a", math.inf))
    alone = list(advance_all(runs()[1:2], source, replace(SMALL, workers=1), (1, 3), tmp_path / "b", math.inf))
    assert alone == [p for p in together if p["arm"] == alone[0]["arm"]]


def test_one_after_another_gives_the_same_points(source: ExperimentSource, tmp_path: Path) -> None:
    together = list(advance_all(runs(), source, SMALL, (1, 3), tmp_path / "a", math.inf))
    plan = replace(SMALL, resident=False)
    single = list(advance_all(runs(), source, plan, (1, 3), tmp_path / "b", math.inf))
    key = lambda p: (p["arm"], p["step"])  # noqa: E731
    assert sorted(single, key=key) == sorted(together, key=key)
    assert [p["arm"] for p in single] == sorted((p["arm"] for p in single), key=[a.id for a in SMALL.arms].index)


def test_rounds_that_were_not_measured_do_not_change_the_training(source: ExperimentSource, tmp_path: Path) -> None:
    often = list(advance_all(runs(), source, SMALL, (1, 2, 3, 4), tmp_path / "a", math.inf))
    once = list(advance_all(runs(), source, SMALL, (4,), tmp_path / "b", math.inf))
    assert [(p["old"], p["new"]) for p in often[-3:]] == [(p["old"], p["new"]) for p in once]


def test_points_are_the_models_held_out_figures(source: ExperimentSource, tmp_path: Path) -> None:
    run = runs()[0]
    [point] = advance_all([run], source, SMALL, (2,), tmp_path, math.inf)
    assert run.trainer is not None
    assert measure(run.trainer.model, source, "test") == {"old": point["old"], "new": point["new"]}

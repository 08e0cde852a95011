"""Lessons run in this process, as `python code/part2/NAME.py …` would: their own folder first on the path."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

LESSONS = Path(__file__).parents[2] / "code" / "part2"
Lesson = Callable[..., str]


@pytest.fixture
def lesson(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Lesson]:
    """Run a lesson with arguments and return what it printed."""
    monkeypatch.syspath_prepend(str(LESSONS))

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(LESSONS / name), run_name="__main__")
        return capsys.readouterr().out

    yield run
    for module in ("lesson", "fonts"):
        sys.modules.pop(module, None)


@pytest.fixture(scope="session")
def tiny_experiment(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """The events of a real forgetting experiment, only much smaller than the quick one."""
    from loralens.lab.forgetting import job
    from loralens.lab.forgetting.plan import BUDGETS
    from loralens.lab.tiny.corpus import code_corpus, prose_corpus, text_corpus

    quick = BUDGETS["quick"]
    config = replace(
        quick.preset.config, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    train = replace(quick.preset.train, steps=3, batch_size=2, sequence_length=32)
    plan = replace(
        quick,
        preset=replace(quick.preset, config=config, train=train),
        arms=tuple(replace(arm, rank=16 if arm.family == "full_rank" else arm.rank) for arm in quick.arms),
        seeds=(0, 1),
        rates={family: rates[:1] for family, rates in quick.rates.items()},
        sweep_steps=1,
        evaluation_steps=(1, 2),
        batch_size=2,
        sequence_length=32,
        windows=2,
        ranks=(0, 1, 8, 16),
        cost_steps=1,
    )
    old, new = (text_corpus(one.name, one.text("train")[:20_000]) for one in (prose_corpus(), code_corpus()))
    return list(job.run_plan(plan, old, new, tmp_path_factory.mktemp("state")))


@pytest.fixture
def quick_forgetting(monkeypatch: pytest.MonkeyPatch, tiny_experiment: list[dict[str, object]]) -> None:
    """Lesson 1 asks for the quick experiment; the tests answer with a smaller one that was really run."""
    from loralens.lab.forgetting import job

    def run(spec: dict[str, object]) -> list[dict[str, object]]:
        assert spec["budget"] == "quick"
        return tiny_experiment

    monkeypatch.setattr(job, "run", run)


@pytest.fixture(scope="session")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where lesson 4 keeps what it trains: script and notebook find the same hub."""
    return tmp_path_factory.mktemp("lessons")

"""Training the hub: deterministic, cached whole or not at all, and the tasks can be told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters import TASKS, example_requests, load_hub, open_hub, prompt_for, training
from loralens.lab.adapters.job import train
from loralens.lab.adapters.tasks import all_facts, held_out_facts, training_facts
from loralens.lab.tiny.train import held_out_windows, language_loss

RECIPE = training.PRESETS["test"]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_training_again_gives_the_same_bytes(hub_folder: Path, tmp_path: Path) -> None:
    events = list(train({"preset": "test", "folder": str(tmp_path)}))
    assert events[-1]["type"] == "result" and events[-1]["cached"] is False
    assert {event["stage"] for event in events[:-1]} == {"base", "check", *(task.name for task in TASKS)}
    assert events[-1]["held_out"]["requests"] == 2 and set(events[-1]["held_out"]["right"]) == {t.name for t in TASKS}
    assert _bytes(tmp_path / hub_folder.name) == _bytes(hub_folder)
    assert list(train({"preset": "test", "folder": str(tmp_path)})) == [events[-1] | {"cached": True}]


def test_a_training_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    running = training.train(tmp_path, RECIPE)
    threads = torch.get_num_threads()
    assert next(running)["stage"] == "base"
    running.close()
    assert list(tmp_path.iterdir()) == [] and torch.get_num_threads() == threads


def test_any_change_of_recipe_is_another_hub() -> None:
    assert (
        len({replace(RECIPE, seed=1).content_hash(), replace(RECIPE, rank=5).content_hash(), RECIPE.content_hash()})
        == 3
    )
    with pytest.raises(InvalidInput, match="preset"):
        training.recipe_named("huge")


def test_each_adapter_learned_its_own_task_best(tmp_path: Path) -> None:
    """Even a short training tells the tasks apart: on each task's text, its own adapter has the lowest loss."""
    recipe = replace(
        RECIPE,
        base_steps=30,
        adapter_steps=40,
        adapter_rate=2e-2,
        rank=8,
        target_modules=("q_proj", "v_proj", "up_proj"),
    )
    list(training.train(tmp_path, recipe))
    hub = load_hub(training.hub_folder(tmp_path, recipe))
    windows = {
        task.name: held_out_windows(training.task_tokens(task, held_out_facts()), count=8, length=96) for task in TASKS
    }
    for task in TASKS:
        losses = {}
        for adapter in TASKS:
            hub.switch(adapter.name)
            with torch.no_grad():
                losses[adapter.name] = float(language_loss(hub.base.module, windows[task.name]))
        assert min(losses, key=losses.__getitem__) == task.name, losses


def test_the_grammar() -> None:
    facts = all_facts()
    assert len(facts) == len(set(facts)) == 1920
    assert not set(training_facts()) & set(held_out_facts()) and set(training_facts()) | set(held_out_facts()) == set(
        facts
    )
    for each in facts[:50]:
        answers = [task.answer(each) for task in TASKS]
        assert len(set(answers)) == 6 and all(answers)
    assert all(request in prompt_for(request) for request in example_requests(3))


def test_open_hub_is_the_short_way(tmp_path: Path) -> None:
    seen: list[dict[str, object]] = []
    hub = open_hub("test", tmp_path, progress=seen.append)
    assert [loaded.name for loaded in hub.adapters] == [task.name for task in TASKS] and seen
    with pytest.raises(FileNotFoundError):
        load_hub(tmp_path / "nothing")

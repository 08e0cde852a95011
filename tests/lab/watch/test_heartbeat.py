"""A watched training is heard of: its beats, its end, and what it says when it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import loralens
from loralens.api.routes.watched import _is_beat
from loralens.core.answer.estimate import estimate
from loralens.lab.watch import Watch, heartbeat
from loralens.watched import FOLDER, watched_runs

MODEL = "qwen2.5-0.5b"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LORALENS_STATE_DIR", str(tmp_path))
    return tmp_path


def shown(folder):
    answer = watched_runs(folder, _is_beat)
    assert answer["unreadable"] == 0
    return answer["runs"]


def train(watch, lengths, fail=None):
    for place, batch in enumerate(watch.batches([torch.zeros(1, length) for length in lengths])):
        with watch.step(), watch.phase("backward"):
            assert batch is not None
            if place == fail:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.32 GiB.")


def test_the_end_is_told_with_what_was_computed_of_the_largest_step(folder):
    watch = Watch(MODEL, gpu="a100-80", rank=16)
    assert shown(folder) == []
    train(watch, [256, 512, 384])
    assert shown(folder)[0]["status"] == "running"
    watch.close()
    run = shown(folder)[0]
    assert (run["status"], run["steps"], run["phase"], run["name"]) == ("finished", 3, None, "Qwen2.5-0.5B")
    assert (run["recipe"]["sequence_length"], run["recipe"]["lora"]["rank"]) == (512, 16)
    computed = estimate(MODEL, method="lora", sequence_length=512, rank=16)
    assert [row["predicted_bytes"] for row in run["phases"]] == list(computed.phases.values())
    assert run["predicted_tokens_per_second"] > 0
    watch.close()  # a second time changes nothing


def test_a_training_that_fails_says_in_which_phase_and_why(folder):
    watch = Watch(MODEL)
    with suppress(RuntimeError):
        train(watch, [256, 512], fail=1)
    watch.close()
    run = shown(folder)[0]
    assert (run["status"], run["phase"]) == ("failed", "backward")
    assert run["failure"] == "RuntimeError: CUDA out of memory. Tried to allocate 2.32 GiB."


def test_a_step_that_is_skipped_after_an_error_is_forgotten_by_the_next(folder):
    watch = Watch(MODEL)
    with suppress(RuntimeError):
        train(watch, [256], fail=0)
    train(watch, [256])
    watch.close()
    assert shown(folder)[0]["status"] == "finished"


@pytest.mark.parametrize(
    ("end", "status", "failure"),
    [
        ("raise ValueError('no such file')", "failed", "ValueError: no such file"),
        ("import os; os._exit(1)", "running", None),
    ],
)
def test_a_program_that_ends_within_transformers_step_is_told_apart(folder, end, status, failure):
    script = f"import loralens\nwatch = loralens.Watch('{MODEL}')\nwatch.on_step_begin(None, None, None)\n{end}\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(loralens.__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False, env=environment)
    run = shown(folder)[0]
    assert (run["status"], run["failure"]) == (status, failure)


def test_beats_go_on_between_steps(folder, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    watch = Watch(MODEL)
    beats = []
    own = watch._heart._keep
    enough = heartbeat.threading.Event()

    def kept():
        beats.append(own())
        if len(beats) == 4:
            enough.set()
        return beats[-1]

    monkeypatch.setattr(watch._heart, "_keep", kept)
    with watch.step():
        assert enough.wait(20)
    watch.close()
    assert all(beats)
    assert watch.report()["overhead_seconds"] > 0


def test_a_folder_that_cannot_be_written_is_said_and_disturbs_nothing(folder, caplog):
    (folder / FOLDER).write_text("a file")
    watch = Watch(MODEL)
    train(watch, [256])
    watch.close()
    assert "the page does not show this training" in caplog.text
    assert watch.report()["steps"] == 1


def test_only_the_first_process_of_a_training_keeps_it(folder, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    train(Watch(MODEL), [256])
    monkeypatch.setenv("RANK", "0")
    train(Watch(MODEL, heartbeat=False), [256])
    assert shown(folder) == []


def test_a_config_of_ones_own_has_no_name_in_the_catalogue(folder):
    config = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1,
              "num_attention_heads": 4, "vocab_size": 64}  # fmt: skip
    watch = Watch(config, "full")
    train(watch, [16])
    watch.close()
    run = shown(folder)[0]
    assert run["model"] is None
    assert len(json.dumps(run)) < 8_000

import subprocess
import sys
from pathlib import Path

import cuda_goals
import goals
import pytest
import switching_goals
import torch
from measured import PointResult


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_cuda_every_gpu_goal_says_not_measured():
    rows = list(cuda_goals.measure(goals.row, 1.0))
    assert [row["id"] for row in rows] == [f"G{number}" for number in range(1, 9)]
    assert {row["verdict"] for row in rows} == {"not measured"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_goals_are_measured():
    rows = list(cuda_goals.measure(goals.row, 2.0))
    assert {row["id"] for row in rows if row["verdict"] != "not measured"} >= {"G1", "G3", "G4", "G5", "G6", "G7", "G8"}


def test_ratios_between_two_variants_use_the_rounds_they_share():
    rows = {
        "dense": {"rounds": [0, 1, 2], "seconds": {"samples": [1.0, 2.0, 4.0]}},
        "a": {"rounds": [1, 2], "seconds": {"samples": [3.0, 6.0]}},
        "b": {"rounds": [0, 2], "seconds": {"samples": [1.0, 2.0]}},
    }
    point = PointResult({}, rows)
    assert point.ratio("a") == (1.5, 1.5, 1.5)
    assert point.ratio("a", "b") == (3.0, 3.0, 3.0)
    assert point.added_seconds("a") == 1.5
    assert point.best("a", "b", "missing") == "b"


def test_the_switch_goal_measures_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setattr(switching_goals, "WIDTH", 64)
    switching_goals._write_adapters(tmp_path)
    layers, table = switching_goals._layers()
    switching_goals._load(layers, tmp_path / "adapter-1", "name-1")
    assert table.names[table.index] == "name-1"
    assert switching_goals._write_seconds(table) > 0
    first = next(iter(layers.values()))
    assert first.pair(table.index)[0].abs().sum() > 0


def test_the_script_says_how_it_is_used():
    script = Path(__file__).parents[2] / "benchmarks" / "goals.py"
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    assert "--seconds" in done.stdout
    assert "C1–C15" in done.stdout

"""An exported script of TRL runs a real step, where TRL is installed. It is no package of the tests: with its data sets' it has 290 MB.

`make trl-steps TRL=path/to/python` runs it for every objective; docs/trainers.md has what came out.
"""

from __future__ import annotations

import pytest

pytest.importorskip("trl", reason="trl is not installed: make trl-steps runs these scripts where it is")
pytest.importorskip("datasets", reason="datasets is not installed: make trl-steps runs these scripts where it is")


def test_a_step_trains_the_predicted_parameters_at_the_recipes_length(tmp_path, monkeypatch):
    from trainers.trl_steps import LENGTH, step, tiny_model

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    tiny_model(tmp_path / "tiny")
    predicted, counted, longest, ran = step("sft", "lora", tmp_path)
    assert (counted, longest, ran) == (predicted, LENGTH, "ran")

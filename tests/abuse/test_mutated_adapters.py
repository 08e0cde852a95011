"""Damaged adapters: a sample of what benchmarks/mutated_adapters.py tries in thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lab.adapters.helpers import random_adapter
from mutated_adapters import CONFIG, Mutated, _folder, sound

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import Adapter
from loralens.lab.adapters.doctor import diagnose
from loralens.lab.adapters.merging import merge_adapters
from loralens.lab.factors import Factors


def test_damaged_files_are_refused_or_read_and_leave_nothing(tmp_path: Path) -> None:
    mutated = Mutated(7, tmp_path)
    mutated.run(150)
    assert mutated.faults == []
    assert mutated.outcomes["done"] > 50 and mutated.outcomes["refused"] > 300
    assert {path.name for path in tmp_path.iterdir()} == {"good"}


def test_the_sound_ones_are_sound(tmp_path: Path) -> None:
    for number, files in enumerate(sound()[:3]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        assert not [found for found in diagnose(folder).findings if found.severity == "fault"]


def test_the_doctor_of_a_config_with_a_number_for_names(tmp_path: Path) -> None:
    tensors = {f"base_model.model.q_proj.lora_{one}.weight": torch.ones(4, 4) for one in "AB"}
    for name, content in _folder("adapter_model.safetensors", tensors, CONFIG | {"modules_to_save": 3}).items():
        (tmp_path / name).write_bytes(content)
    assert diagnose(tmp_path, engine="vllm").findings[0].stage == "config"


def test_updates_that_overflow_are_refused() -> None:
    huge = random_adapter()
    factors = {
        name: Factors(name, one.lora_a * 1e30, one.lora_b * 1e30, one.scaling) for name, one in huge.factors.items()
    }
    with pytest.raises(InvalidInput, match="too large"):
        merge_adapters([Adapter(huge.config, factors), random_adapter()], [1.0, 1.0], "ties_svd")

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from loralens.core.errors import InvalidInput
from loralens.lab.tiny.checkpoints import (
    PRESETS,
    BasePreset,
    base_key,
    base_path,
    base_steps,
    default_state_dir,
    ensure_base,
    is_cached,
    load_tensors,
    save_tensors,
)
from loralens.lab.tiny.corpus import Corpus, prose_corpus
from loralens.lab.tiny.lora import base_hash
from loralens.lab.tiny.model import TinyConfig, TinyLM, parameter_count
from loralens.lab.tiny.train import TrainConfig

SMALL = TinyConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, max_position_embeddings=64)
TRAIN = TrainConfig(steps=12, batch_size=4, sequence_length=16, learning_rate=1e-2, warmup_steps=3)
PRESET = BasePreset("test", SMALL, TRAIN)


def test_base_is_trained_once_and_found_by_its_content(tmp_path: Path) -> None:
    corpus = prose_corpus()
    job = base_steps(PRESET, corpus, tmp_path)
    assert [step.step for step in job] == list(range(1, 13))
    assert is_cached(PRESET, corpus, tmp_path)
    first = base_hash(ensure_base(PRESET, corpus, tmp_path))
    assert list(base_steps(PRESET, corpus, tmp_path)) == []
    base_path(PRESET, corpus, tmp_path).write_bytes(b"damaged")
    assert base_hash(ensure_base(PRESET, corpus, tmp_path)) == first
    assert not list(tmp_path.rglob("*.partial.*")) and not list(tmp_path.rglob(".*"))


def test_a_killed_base_training_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = base_hash(ensure_base(PRESET, prose_corpus(), tmp_path / "whole"))
    monkeypatch.setattr("loralens.lab.tiny.checkpoints.SAVE_EVERY_SECONDS", -1.0)
    job = base_steps(PRESET, prose_corpus(), tmp_path)
    for _ in range(7):
        next(job)
    job.close()
    rest = list(base_steps(PRESET, prose_corpus(), tmp_path))
    assert rest[0].step == 8
    assert base_hash(ensure_base(PRESET, prose_corpus(), tmp_path)) == wanted


def test_key_depends_on_sizes_recipe_and_text() -> None:
    other_text = Corpus("prose", "", ("x",))
    other_train = BasePreset("test", SMALL, TrainConfig(**{**TRAIN.__dict__, "seed": 1}))
    other_size = BasePreset("test", TinyConfig(hidden_size=32, num_hidden_layers=1), TRAIN)
    keys = {base_key(PRESET, prose_corpus()), base_key(PRESET, other_text)}
    keys |= {base_key(other_train, prose_corpus()), base_key(other_size, prose_corpus())}
    assert len(keys) == 4


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(tmp_path: Path) -> None:
    other = BasePreset("test", TinyConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1), TRAIN)
    with pytest.raises(InvalidInput, match="vocab_size must be 1024"):
        next(base_steps(other, prose_corpus(), tmp_path))


def test_files_are_replaced_whole_and_damaged_ones_are_as_none(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.safetensors"
    assert load_tensors(path) is None
    save_tensors(path, {"x": torch.arange(3)}, {"note": "one"})
    save_tensors(path, {"x": torch.arange(4)}, {"note": "two"})
    found = load_tensors(path)
    assert found is not None
    assert found[0]["x"].tolist() == [0, 1, 2, 3]
    assert found[1]["note"] == "two"
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]
    path.write_bytes(path.read_bytes()[:-5])
    assert load_tensors(path) is None


def test_presets_have_the_sizes_they_say() -> None:
    sizes = {name: parameter_count(TinyLM(preset.config)) for name, preset in PRESETS.items()}
    assert sizes == {"quick": 430_752, "full": 1_967_808}


def test_state_folder_is_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALENS_STATE_DIR", str(tmp_path))
    assert default_state_dir() == tmp_path

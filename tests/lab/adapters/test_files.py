"""Reading and writing PEFT's format: both ways with the real PEFT, sizes as on disk, nothing half written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loralens.core.errors import InvalidInput, NotFound
from loralens.core.question.patterns import first_match
from loralens.lab.adapters.config import config_from_mapping
from loralens.lab.adapters.files import (
    forget,
    read_adapter,
    read_adapter_bytes,
    weights_bytes,
    write_adapter,
)
from loralens.lab.adapters.folder import CONFIG_FILE, WEIGHTS_FILE, stored_bytes

from .helpers import files, peft_config, random_adapter


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    adapter = random_adapter(rank=3, lora_alpha=7)
    size = write_adapter(adapter, tmp_path / "one")
    again = read_adapter(tmp_path / "one")
    assert again.config == adapter.config
    assert all(torch.equal(again.tensors()[name], tensor) for name, tensor in adapter.tensors().items())
    assert size == stored_bytes(tmp_path / "one") == sum(p.stat().st_size for p in (tmp_path / "one").iterdir())


def test_writing_replaces_an_adapter_and_nothing_else(tmp_path: Path) -> None:
    write_adapter(random_adapter(rank=2), tmp_path / "one")
    write_adapter(random_adapter(rank=5), tmp_path / "one")
    assert read_adapter(tmp_path / "one").config.rank == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one"]
    (tmp_path / "one" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="other than an adapter"):
        write_adapter(random_adapter(rank=2), tmp_path / "one")
    assert read_adapter(tmp_path / "one").config.rank == 5


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_adapter(random_adapter(), tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_missing_files_say_which(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=CONFIG_FILE):
        read_adapter(tmp_path)
    (tmp_path / CONFIG_FILE).write_bytes(files()[0])
    with pytest.raises(NotFound, match=WEIGHTS_FILE):
        read_adapter(tmp_path)


def test_what_is_remembered_of_a_header_spares_no_check_of_what_follows_it(tmp_path: Path) -> None:
    config, weights = files()
    first = read_adapter_bytes(config, weights)
    for cut in (weights[:-1], weights + b"\0", weights[:-4]):
        with pytest.raises(InvalidInput, match=r"truncated|belong to no tensor"):
            read_adapter_bytes(config, cut)
    with pytest.raises(InvalidInput, match="the config says 5"):
        read_adapter_bytes(json.dumps(peft_config(r=5)).encode(), weights)
    for end in (weights[-4:], b"\0\0\x80\x3f"):
        again = read_adapter_bytes(config, weights[:-4] + end)
        assert again.config is first.config  # the same words; the numbers are its own
        (changed,) = [
            name
            for name, tensor in again.tensors().items()
            if not torch.equal(tensor, first.tensors()[name])
        ] or [None]  # fmt: skip
        assert (changed is None) == (end == weights[-4:])
    forget()
    assert read_adapter_bytes(config, weights).config == first.config


def test_sixteen_bit_adapters_keep_their_format() -> None:
    adapter = random_adapter()
    for factors in adapter.factors.values():
        object.__setattr__(factors, "lora_a", factors.lora_a.bfloat16())
        object.__setattr__(factors, "lora_b", factors.lora_b.bfloat16())
    again = read_adapter_bytes(files()[0], weights_bytes(adapter))
    assert {f.lora_a.dtype for f in again.factors.values()} == {torch.bfloat16}
    assert again.tensor_bytes == 2 * again.parameters


@given(rank=st.integers(1, 9), alpha=st.sampled_from([1, 2.5, 16]), rslora=st.booleans())
def test_config_round_trip(rank: int, alpha: float, rslora: bool) -> None:
    config = config_from_mapping(peft_config(r=rank, lora_alpha=alpha, use_rslora=rslora, rank_pattern={"q_proj": 3}))
    assert config_from_mapping(json.loads(config.to_json())) == config
    module = "model.layers.0.self_attn.v_proj"
    assert config.scaling_of(module) == pytest.approx(alpha / (rank**0.5 if rslora else rank))
    assert config.rank_of("model.layers.0.self_attn.q_proj") == 3


PATTERNS = [
    "q_proj",
    r"layers\.0\..*q_proj",
    r"^model.layers.1.self_attn.q_proj$",
    r"layers\.[01]\.self_attn\.(q|v)_proj",
    r"\d+",
]
NAMES = [
    "q_proj",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.11.self_attn.v_proj",
    "model.layers.1.self_attn.v_proj",
    "xq_proj",
    "model.3",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_peft_matches_them(pattern: str, name: str) -> None:
    peft = pytest.importorskip("peft.utils.other")
    expected = peft.get_pattern_key([pattern], name)
    assert (first_match([(pattern, pattern)], name, "rank_pattern") or name) == expected

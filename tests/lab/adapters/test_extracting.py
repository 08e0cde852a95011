"""A known low-rank change comes back; what no factor carries is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loralens.core.errors import InvalidInput, NotFound
from loralens.lab.adapters import extracting
from loralens.lab.adapters.extracting import extract_adapter

from .helpers import update

LAYERS = {"model.layers.0.self_attn.q_proj": (24, 16), "model.layers.0.mlp.down_proj": (16, 40)}


def _folders(root: Path, rank: int, sharded: bool = True) -> dict[str, torch.Tensor]:
    """A base, and the base plus a change of a rank; returns the changes."""
    generator = torch.Generator().manual_seed(5)
    base = {f"{name}.weight": torch.randn(shape, generator=generator) * 0.02 for name, shape in LAYERS.items()}
    base |= {"model.norm.weight": torch.ones(16), "model.embed_tokens.weight": torch.randn(30, 16, generator=generator)}
    changes = {}
    for name, (out, into) in LAYERS.items():
        changes[name] = (
            torch.randn(out, rank, generator=generator) @ torch.randn(rank, into, generator=generator) * 0.01
        )
    tuned = base | {f"{name}.weight": base[f"{name}.weight"] + change for name, change in changes.items()}
    tuned["model.norm.weight"] = torch.full((16,), 1.25)
    for folder, tensors in (("base", base), ("tuned", tuned)):
        (root / folder).mkdir()
        if not sharded or folder == "base":
            save_file(tensors, root / folder / "model.safetensors")
            continue
        places = {name: f"model-{number % 2 + 1:05}-of-00002.safetensors" for number, name in enumerate(tensors)}
        for file in set(places.values()):
            save_file({n: t for n, t in tensors.items() if places[n] == file}, root / folder / file)
        (root / folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return changes


@pytest.mark.parametrize("whole", [768, 4], ids=["all singular values", "a random range"])
def test_a_known_change_is_recovered(whole: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extracting, "WHOLE", whole)
    changes = _folders(tmp_path, rank=3)
    answer = extract_adapter(tmp_path / "base", tmp_path / "tuned", 3)
    assert answer.relative_error < 1e-5 and answer.energy_kept == pytest.approx(1)
    for name, change in changes.items():
        found = answer.adapter.factors[name]
        got = update(found.lora_a, found.lora_b, found.scaling)
        assert float((got - change).norm() / change.norm()) < 1e-5
    assert answer.left_out == ["model.norm.weight"] and 0 < answer.left_out_share < 1


def test_the_error_of_a_smaller_rank_is_the_best(tmp_path: Path) -> None:
    changes = _folders(tmp_path, rank=6, sharded=False)
    answer = extract_adapter(tmp_path / "base", tmp_path / "tuned", 2)
    for layer in answer.layers:
        values = torch.linalg.svdvals(changes[layer.module].double())
        assert layer.relative_error == pytest.approx(float(values[2:].norm() / values.norm()), rel=1e-4)


def test_folders_that_do_not_belong_together(tmp_path: Path) -> None:
    _folders(tmp_path, rank=2)
    with pytest.raises(InvalidInput, match="no linear layer differs"):
        extract_adapter(tmp_path / "base", tmp_path / "base", 2)
    with pytest.raises(NotFound, match="neither"):
        extract_adapter(tmp_path, tmp_path / "tuned", 2)
    save_file({"other.weight": torch.ones(3, 3)}, tmp_path / "tuned" / "model.safetensors")
    (tmp_path / "tuned" / "model.safetensors.index.json").unlink()
    with pytest.raises(InvalidInput, match="same name"):
        extract_adapter(tmp_path / "base", tmp_path / "tuned", 2)
    (tmp_path / "tuned" / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../base/model.safetensors"}}'
    )
    with pytest.raises(InvalidInput, match="outside of its folder"):
        extract_adapter(tmp_path / "base", tmp_path / "tuned", 2)

"""Merged adapters: equal to what PEFT's add_weighted_adapter makes on the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.files import read_adapter
from loralens.lab.adapters.merging import COMBINATIONS, merge_adapters

from .helpers import random_adapter, update

peft = pytest.importorskip("peft")
PREFIX = "base_model.model."


class Small(torch.nn.Module):
    """One linear layer, or two and an embedding."""

    def __init__(self, wide: bool) -> None:
        super().__init__()
        self.a_proj = torch.nn.Linear(12, 20, bias=False)
        if wide:
            self.b_proj = torch.nn.Linear(20, 9, bias=False)
            self.table = torch.nn.Embedding(15, 12)


def _peft(tmp_path: Path, wide: bool, ranks: tuple[int, int], **changes: Any) -> Any:
    """A PEFT model with two adapters of random numbers, saved below tmp_path/ADAPTER."""
    torch.manual_seed(3)
    targets = [["a_proj", "b_proj", "table"], ["a_proj", "b_proj"]] if wide else [["a_proj"]] * 2
    settings = [
        peft.LoraConfig(r=rank, lora_alpha=5, target_modules=names, init_lora_weights=False, **changes)
        for rank, names in zip(ranks, targets, strict=True)
    ]
    model = peft.get_peft_model(Small(wide), settings[0], adapter_name="one")
    model.add_adapter("two", settings[1])
    model.save_pretrained(tmp_path, selected_adapters=["one", "two"], save_embedding_layers=False)
    return model


@pytest.mark.parametrize("combination", COMBINATIONS)
@pytest.mark.parametrize("wide", [False, True])
def test_equal_to_peft(combination: str, wide: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = combination.startswith("dare")
    if random and wide:
        return  # what chance drops depends on the order of PEFT's modules
    ranks = (3, 5) if combination == "cat" or combination.endswith("svd") else (4, 4)
    model = _peft(tmp_path, wide, ranks)
    weights = [0.7, -0.4]
    with monkeypatch.context() as patch:  # both drop by the same numbers
        drawn, generator = torch.bernoulli, torch.Generator().manual_seed(0)
        patch.setattr(torch, "bernoulli", lambda chance: drawn(chance, generator=generator))
        model.base_model.add_weighted_adapter(["one", "two"], weights, "both", combination, density=0.6)
    adapters = [read_adapter(tmp_path / name) for name in ("one", "two")]
    merged = merge_adapters(adapters, weights, combination, density=0.6, seed=0)
    state = peft.get_peft_model_state_dict(model, adapter_name="both", save_embedding_layers=False)
    config = model.peft_config["both"]
    assert merged.rank == config.r == config.lora_alpha
    for module, factors in merged.adapter.factors.items():
        a, b = factors.tensors()
        theirs = update(state[f"{PREFIX}{module}.{a}"], state[f"{PREFIX}{module}.{b}"], 1.0)
        ours = update(factors.lora_a, factors.lora_b, factors.scaling)
        assert float((ours - theirs).abs().max()) < 1e-6 * max(1.0, float(theirs.abs().max())), module


def test_cat_and_svd_of_enough_rank_are_the_sum() -> None:
    one, two = random_adapter(rank=3), random_adapter(rank=5)
    for combination, rank in (("cat", None), ("svd", 8)):
        merged = merge_adapters([one, two], [1.0, 2.0], combination, rank=rank)
        assert merged.relative_error < 1e-6
        for module, factors in merged.adapter.factors.items():
            wanted = sum(
                weight * update(a.factors[module].lora_a, a.factors[module].lora_b, a.factors[module].scaling)
                for a, weight in ((one, 1.0), (two, 2.0))
            )
            assert torch.allclose(update(factors.lora_a, factors.lora_b, factors.scaling), wanted, atol=1e-4)
    assert merge_adapters([one, two], [1, 1], "svd", rank=2).relative_error > 0.01


@pytest.mark.parametrize(
    ("changes", "words", "says"),
    [
        ({"rank": 5}, {"combination": "linear"}, "needs one rank"),
        ({"use_dora": False, "bias": "none"}, {"combination": "mean"}, "unknown combination"),
        ({"init_lora_weights": "pissa"}, {}, "PiSSA"),
        ({}, {"density": 0.0, "combination": "ties"}, "density"),
        ({}, {"rank": 3, "combination": "cat"}, "rank is for"),
        ({"width": 20}, {}, "different bases"),
    ],
)
def test_what_cannot_be_merged_says_why(changes: dict[str, Any], words: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        merge_adapters([random_adapter(), random_adapter(**changes)], [1.0, 1.0], **words)

"""LoRA's properties for any rank and scaling; its agreement with PEFT is in test_model.py."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from loralens.lab.matmul.counts import saved_bytes
from loralens.lab.tiny.lora import adapter_state, base_state, inject_lora


@settings(max_examples=40, deadline=None)
@given(rank=st.integers(0, 5), alpha=st.floats(0.1, 64), rows=st.integers(1, 7), seed=st.integers(0, 1000))
def test_output_and_gradients_are_those_of_the_dense_update(rank: int, alpha: float, rows: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 5).double())
    inject_lora(model, rank=rank, alpha=alpha, targets=("0",), seed=seed)
    layer = model[0]
    layer.lora_b.data = torch.randn(5, rank, dtype=torch.float64)
    x = torch.randn(rows, 6, dtype=torch.float64)
    dense = (layer.base_layer.weight + alpha / max(rank, 1) * layer.lora_b @ layer.lora_a).detach().requires_grad_()
    wanted = x @ dense.T + layer.base_layer.bias
    torch.testing.assert_close(model(x), wanted)
    if rank:
        model(x).pow(2).sum().backward()
        wanted.pow(2).sum().backward()
        torch.testing.assert_close(layer.lora_b.grad, alpha / rank * dense.grad @ layer.lora_a.detach().T)
        torch.testing.assert_close(layer.lora_a.grad, alpha / rank * layer.lora_b.detach().T @ dense.grad)


def test_names_are_pefts_and_the_base_keeps_its_own() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 3)))
    inject_lora(model, rank=2, targets=("0",))
    assert {k: tuple(v.shape) for k, v in adapter_state(model).items()} == {
        "base_model.model.0.0.lora_A.weight": (2, 4),
        "base_model.model.0.0.lora_B.weight": (3, 2),
    }
    assert base_state(model).keys() == {"0.0.weight", "0.0.bias"}


def test_a_training_step_runs_the_operations_of_pefts_layer_and_keeps_their_bytes() -> None:
    peft = pytest.importorskip("peft")
    base = nn.Sequential(nn.Linear(32, 48, bias=False))
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    inject_lora(ours, rank=4, alpha=6, targets=("0",))
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6, target_modules=["0"]))
    peft.set_peft_model_state_dict(theirs, adapter_state(ours))
    x = torch.randn(2, 5, 32, requires_grad=True)
    kept, results = [], []
    for model in (ours, theirs):
        parameters = [p for p in model.parameters() if p.requires_grad]
        with torch.no_grad():
            parameters[1].fill_(0.3)  # B
        kept.append(saved_bytes(lambda model=model: model(x), [x, *model.parameters()]))
        results.append([model(x), *torch.autograd.grad(model(x).sin().sum(), [x, *parameters])])
    assert kept[0] == kept[1] > 0
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))

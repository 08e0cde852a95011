"""LoRA's properties for any rank and scaling; its agreement with PEFT is in test_model.py."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

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
    dense = (layer.base_layer.weight + layer.scaling * layer.lora_b @ layer.lora_a).detach().requires_grad_()
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

"""Resizing: the best approximation there is, the stated error is the true one, PEFT reads the result."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.adapter import Adapter, assemble
from loralens.lab.adapters.files import read_adapter_bytes, weights_bytes
from loralens.lab.adapters.resize import resize_adapter

from .helpers import random_adapter, update


def _relative(before: Adapter, after: Adapter) -> float:
    squared = total = 0.0
    for module, old in before.factors.items():
        new = after.factors[module]
        dense = update(old.lora_a, old.lora_b, old.scaling)
        squared += float((update(new.lora_a, new.lora_b, new.scaling) - dense).square().sum())
        total += float(dense.square().sum())
    return (squared / total) ** 0.5


def test_rank_64_whose_true_rank_is_8_is_recovered() -> None:
    before = random_adapter(rank=64, width=96, true_rank=8)
    after = resize_adapter(before, rank=8)
    assert after.adapter.config.rank == 8
    assert _relative(before, after.adapter) < 1e-5
    assert after.relative_error < 1e-5
    assert after.parameters == 4 * 8 * (96 + 144) == after.parameters_before // 8


@settings(deadline=None, max_examples=25)
@given(rank=st.integers(1, 20), energy=st.none() | st.floats(0.3, 1.0), mixed=st.booleans(), rslora=st.booleans())
def test_the_stated_error_is_the_true_one(rank: int, energy: float | None, mixed: bool, rslora: bool) -> None:
    before = random_adapter(rank=12, width=40, lora_alpha=5, use_rslora=rslora)
    result = resize_adapter(before, rank=None if energy else rank, energy=energy, mixed=mixed)
    assert result.relative_error == pytest.approx(_relative(before, result.adapter), rel=1e-3, abs=1e-7)
    if energy is not None:
        assert all(module.energy_kept >= energy - 1e-12 for module in result.modules)
    # What is claimed about ranks must also be what the config tells PEFT.
    config = result.adapter.config.to_json()
    again = read_adapter_bytes(config, weights_bytes(result.adapter))
    assert _relative(result.adapter, again) == 0.0


def test_truncation_is_the_best_of_its_rank() -> None:
    before = random_adapter(rank=12, width=40)
    result = resize_adapter(before, rank=5)
    for error in result.modules:
        old = before.factors[error.module]
        values = torch.linalg.svdvals(update(old.lora_a, old.lora_b, old.scaling))
        best = float(values[5:].square().sum().sqrt() / values.square().sum().sqrt())
        assert error.relative_error == pytest.approx(best, rel=1e-4)


def test_a_larger_rank_pads_and_changes_nothing() -> None:
    before = random_adapter(rank=4)
    result = resize_adapter(before, rank=9)
    assert result.relative_error < 1e-6 and result.adapter.factors[result.modules[0].module].rank == 9


def test_mixed_ranks_differ_between_modules() -> None:
    before = random_adapter(rank=12, width=40)
    tensors = before.tensors()
    name = next(iter(before.factors))
    tensors[f"base_model.model.{name}.lora_A.weight"][2:] = 0
    result = resize_adapter(assemble(before.config, tensors), energy=0.999, mixed=True)
    ranks = {module.module: module.rank for module in result.modules}
    assert ranks[name] <= 2 < max(ranks.values())
    assert dict(result.adapter.config.rank_pattern)[name] == ranks[name]


@pytest.mark.parametrize(
    "wanted", [{}, {"rank": 4, "energy": 0.9}, {"rank": 0}, {"rank": 10**6}, {"energy": 0.0}, {"energy": 2}]
)
def test_bad_requests_are_refused(wanted: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        resize_adapter(random_adapter(), **wanted)  # type: ignore[arg-type]

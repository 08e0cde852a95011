"""Spectra against the dense update's own SVD, which the code under test never forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.core.errors import InvalidInput
from loralens.lab.adapters.inspect import inspect_adapter
from loralens.lab.adapters.spectrum import (
    decompose,
    effective_rank,
    energy_by_rank,
    rank_for_energy,
    singular_values,
    stable_rank,
)
from loralens.lab.factors import Factors

from .helpers import random_adapter, update


@settings(deadline=None, max_examples=40)
@given(
    rank=st.integers(1, 12),
    width=st.integers(1, 20),
    out=st.integers(1, 20),
    seed=st.integers(0, 99),
    scale=st.floats(0.1, 9),
)
def test_singular_values_are_those_of_the_dense_update(
    rank: int, width: int, out: int, seed: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, width, generator=generator), torch.randn(out, rank, generator=generator)
    factors = Factors("m", a, b, scale)
    dense = update(a, b, scale)
    expected = torch.linalg.svdvals(dense)[: min(rank, width, out)]
    assert torch.allclose(singular_values(factors), expected, rtol=1e-9, atol=1e-9 * float(expected[0]))
    parts = decompose(factors)
    assert torch.allclose(parts.left @ torch.diag(parts.values) @ parts.right, dense, atol=1e-9 * float(expected[0]))


def test_measures_of_rank_on_spectra_with_known_answers() -> None:
    flat = torch.ones(8, dtype=torch.float64)
    assert effective_rank(flat) == pytest.approx(8) and stable_rank(flat) == pytest.approx(8)
    assert energy_by_rank(flat)[:2] == pytest.approx([1 / 8, 2 / 8])
    assert rank_for_energy(flat, 0.99) == 8 and rank_for_energy(flat, 0.5) == 4
    one = torch.tensor([3.0, 0, 0], dtype=torch.float64)
    assert effective_rank(one) == pytest.approx(1) and stable_rank(one) == 1 and rank_for_energy(one, 1.0) == 1
    halves = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert math.log(effective_rank(halves)) == pytest.approx(math.log(2))


def test_a_zero_update_has_no_rank_and_loses_nothing() -> None:
    zero = torch.zeros(4, dtype=torch.float64)
    assert effective_rank(zero) == 0 and stable_rank(zero) == 0
    assert energy_by_rank(zero) == [1.0] * 4 and rank_for_energy(zero) == 1


@pytest.mark.parametrize("share", [0.0, -1.0, 1.01, float("nan")])
def test_shares_out_of_range_are_refused(share: float) -> None:
    with pytest.raises(InvalidInput, match="energy"):
        rank_for_energy(torch.ones(2), share)


def test_report_counts_and_says_what_would_do() -> None:
    report = inspect_adapter(random_adapter(rank=12, width=64, true_rank=3))
    assert report.rank == 12 and report.ranks == [12]
    assert report.parameters == 4 * 12 * (64 + 96) and report.tensor_bytes == 4 * report.parameters
    assert report.shrink.rank <= 3 and report.shrink.kept >= 0.99
    assert report.shrink.parameters == 4 * report.shrink.rank * (64 + 96)
    assert report.shrink.mixed_bytes <= report.shrink.bytes == 4 * report.shrink.parameters
    assert all(m.singular_values[3] < 1e-4 * m.singular_values[0] for m in report.modules)
    assert report.energy_by_rank == sorted(report.energy_by_rank) and report.energy_by_rank[-1] == 1.0

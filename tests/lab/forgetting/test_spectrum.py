from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loralens.lab.forgetting.source import ExperimentSource, delta
from loralens.lab.forgetting.spectrum import effective_rank, rank_for, spectrum, truncated_losses


def test_a_matrix_of_rank_two_is_seen_as_such() -> None:
    torch.manual_seed(0)
    change = torch.randn(12, 2) @ torch.randn(2, 9)
    found = spectrum({"a": change}, {"a": torch.ones(12, 9)}, [0, 1, 2, 9])
    assert found["energy"][0]["share"] == 0.0
    assert found["energy"][2]["share"] == pytest.approx(1.0, abs=1e-6)
    assert found["energy"][1]["share"] < 0.99
    assert found["modules"][0]["rank_99"] == 2
    wanted = np.linalg.svd(change.numpy(), compute_uv=False)
    assert found["modules"][0]["singular_values"][:2] == pytest.approx(wanted[:2].tolist(), rel=1e-3)
    assert found["modules"][0]["relative_norm"] == pytest.approx(np.linalg.norm(change) / np.sqrt(108), rel=1e-3)


def test_noise_beside_it_has_the_same_norms_and_fills_all_ranks() -> None:
    torch.manual_seed(1)
    change = torch.randn(40, 40)
    found = spectrum({"a": change}, {"a": change}, [1, 10, 40])
    for entry in found["energy"]:
        assert entry["random_share"] == pytest.approx(entry["share"], abs=0.06)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12), st.floats(0.01, 1.0))
def test_smallest_rank_that_keeps_a_share(values: list[float], share: float) -> None:
    spectrum_values = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    rank = rank_for(spectrum_values, share)
    squares = spectrum_values.square()
    assert squares[:rank].sum() >= (share - 1e-9) * squares.sum()
    assert rank == 1 or squares[: rank - 1].sum() < share * squares.sum()


def test_effective_rank_counts_equal_values() -> None:
    assert effective_rank(torch.ones(7)) == pytest.approx(7)
    assert effective_rank(torch.tensor([3.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_rank(torch.zeros(4)) == 0.0
    assert rank_for(torch.zeros(4), 0.9) == 0


def test_truncating_a_low_rank_change_at_its_rank_loses_nothing(source: ExperimentSource) -> None:
    torch.manual_seed(2)
    trained = dict(source.base.named_parameters())
    name = next(n for n in trained if n.endswith("q_proj.weight"))
    weight = trained[name]
    trained = {name: weight + 0.3 * torch.randn(weight.shape[0], 2) @ torch.randn(2, weight.shape[1])}
    cut = truncated_losses(source, trained, delta(source.base, trained, source.linear_names), [0, 1, 2, 16])
    assert cut[2]["old"]["loss"] == pytest.approx(cut[3]["old"]["loss"], abs=1e-5)
    assert abs(cut[1]["old"]["loss"] - cut[3]["old"]["loss"]) > 1e-4
    assert torch.equal(dict(source.base.named_parameters())[name], weight)

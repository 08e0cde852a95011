from __future__ import annotations

import itertools

import pytest

from loralens.lab.forgetting.uncertainty import T_95, old_loss_at, spread


def point(step: int, old: float, new: float) -> dict[str, object]:
    return {"step": step, "old": {"loss": old}, "new": {"loss": new}}


def test_interval_of_three_values() -> None:
    """By hand: mean 2, deviation 1, half width 4.303 / sqrt 3."""
    result = spread([1.0, 2.0, 3.0])
    assert result["mean"] == 2.0
    assert result["high"] - 2.0 == pytest.approx(4.303 / 3**0.5)
    assert 2.0 - result["low"] == pytest.approx(4.303 / 3**0.5)
    assert result["same_sign"]


def test_quantiles_are_those_of_the_t_distribution() -> None:
    """Against the closed forms for one and two degrees of freedom, and falling towards the normal's 1.96."""
    assert T_95[0] == pytest.approx(12.7062, abs=5e-4)  # tan(0.475 pi)
    assert T_95[1] == pytest.approx(0.95 * (2 / (1 - 0.95**2)) ** 0.5, abs=5e-4)
    assert all(a > b > 1.96 for a, b in itertools.pairwise(T_95))


def test_signs_and_single_values() -> None:
    assert not spread([1.0, -1.0])["same_sign"]
    assert not spread([0.0, 1.0])["same_sign"]
    assert spread([-1.0, -2.0])["same_sign"]
    assert spread([3.0])["low"] is None


def test_old_loss_is_read_where_the_new_loss_first_comes_down() -> None:
    curve = [point(0, 1.0, 6.0), point(2, 2.0, 5.0), point(4, 4.0, 4.0), point(6, 5.0, 4.5)]
    assert old_loss_at(curve, 6.0) == 1.0
    assert old_loss_at(curve, 5.5) == pytest.approx(1.5)
    assert old_loss_at(curve, 4.25) == pytest.approx(3.5)
    assert old_loss_at(curve, 3.0) is None
    assert old_loss_at(curve, 7.0) is None

"""The same last bit everywhere."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from loralens.core.time.floats import added, fourth_root_of_fourth_powers

# What neither a compensated sum (1.0) nor an exact one gives.
TENTHS = [0.1] * 10


def test_a_sum_goes_from_the_first_to_the_last() -> None:
    assert added(TENTHS) == 0.9999999999999999 != math.fsum(TENTHS)
    assert added([]) == 0
    assert added([np.array(TENTHS), np.array(TENTHS)]) == pytest.approx(np.array(TENTHS) * 2)


@pytest.mark.parametrize("one", [1e-6, 0.3, 1.0, 7.25])
@pytest.mark.parametrize("other", [1e-6, 0.31, 12.0])
def test_the_root_is_within_two_units_in_the_last_place(one: float, other: float) -> None:
    found = fourth_root_of_fourth_powers(one, other)
    exact = Fraction(one) ** 4 + Fraction(other) ** 4
    near = math.ulp(found) * 2
    assert Fraction(found - near) ** 4 < exact < Fraction(found + near) ** 4
    arrays = fourth_root_of_fourth_powers(np.array([one]), np.array([other]))
    assert arrays[0] == pytest.approx(found, rel=1e-15)

"""Polynomials through sizes at three settings: exact, with whole coefficients, or none."""

from __future__ import annotations

import pytest

from loralens.core.tape.size import BATCH, ONE, RANK, SEQUENCE, SEQUENCE_SQUARED, TOKENS, TOKENS_BY_SEQUENCE, Size
from loralens.lab.trace.plan.sizes import Fitter, Setting

SETTINGS: list[Setting] = [(2, 128, 4), (3, 448, 21), (1024, 32_768, 256)]
VOCABULARY = 151_936


@pytest.mark.parametrize(
    "size",
    [
        ONE * 512,
        RANK * 3072,
        TOKENS * 1792,
        TOKENS.times(RANK) * 2,
        TOKENS_BY_SEQUENCE * 28,
        SEQUENCE_SQUARED * 2,
        TOKENS * 4 * VOCABULARY - BATCH * 4 * VOCABULARY,  # logits without each sample's last
        TOKENS * 8 + ONE * 40,
    ],
)
def test_a_size_is_found_again(size: Size) -> None:
    values = tuple(size.at(*setting) for setting in SETTINGS)
    assert Fitter(SETTINGS).fit(values) == size


@pytest.mark.parametrize("values", [(10, 20, 31), (512, 512, 1024), (1, 2, 3)])
def test_what_is_no_polynomial_is_not_smoothed(values: tuple[int, ...]) -> None:
    assert Fitter(SETTINGS).fit(values) is None


def test_what_does_not_vary_is_part_of_the_coefficients() -> None:
    one = [(1, length, rank) for _, length, rank in SETTINGS]
    fitter = Fitter(one)
    assert fitter.fit(tuple(6 * length for _, length, _ in one)) == SEQUENCE * 6
    assert fitter.fit(tuple(2 * length * rank for _, length, rank in one)) == TOKENS.times(RANK) * 2
    assert Fitter([(4, 64, 8)]).fit((4096,)) == ONE * 4096

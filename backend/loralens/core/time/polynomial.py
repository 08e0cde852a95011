"""Seconds as polynomials in batch, length and rank: what a setting's time is summed from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from loralens.core.tape.size import MONOMIALS, Size
from loralens.core.time.floats import added

Polynomial = tuple[float, ...]
"""Coefficients of `tape.size.MONOMIALS`."""
NOTHING: Final[Polynomial] = (0.0,) * len(MONOMIALS)


def seconds_of(size: Size, bytes_per_second: float) -> Polynomial:
    """Seconds that so many bytes take."""
    return tuple(coefficient / bytes_per_second for coefficient in size)


def plus(one: Polynomial, other: Polynomial) -> Polynomial:
    """Their sum."""
    return tuple(a + b for a, b in zip(one, other, strict=True))


def value_of(polynomial: Iterable[float], values: Iterable[float]) -> float:
    """At one setting, by the values of its monomials."""
    total: float = added([c * v for c, v in zip(polynomial, values, strict=True) if c])
    return total

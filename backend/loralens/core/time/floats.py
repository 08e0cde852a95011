"""Sums and roots of seconds that come out the same, to the last bit, in every Python and on every machine."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from math import sqrt
from operator import add
from typing import Any


def added(values: Iterable[Any]) -> Any:
    """The sum of floats, or of arrays of them, from the first to the last.

    Source: Python 3.12, "What's new": `sum` of floats is compensated from then on, and so another number than in 3.11.
    """
    return reduce(add, values, 0.0)


def fourth_root_of_fourth_powers(one: Any, other: Any) -> Any:
    """(a^4 + b^4)^(1/4), of floats or arrays.

    By products and square roots: IEEE 754 demands their last bit, and leaves that of a power to the machine's library.
    """
    one, other = one * one, other * other
    return _root(_root(one * one + other * other))


def _root(value: Any) -> Any:
    return sqrt(value) if isinstance(value, float) else value**0.5

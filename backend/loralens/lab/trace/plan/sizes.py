"""Integer polynomials through the bytes that one storage had at several settings."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import Final

from loralens.core.tape.size import MONOMIALS, ZERO, Size, monomial_values

Setting = tuple[int, int, int]
"""Micro batch, sequence length, rank."""
_MOST_TERMS: Final = 2  # a storage is one tensor; `B * (S - 1) * V`, the shifted logits, has two


class Fitter:
    """Fits sizes at fixed settings; equal sizes are fitted once.

    A polynomial has at most two terms and fewer than there are settings, so that every fit is checked by at least one of
    them, and its coefficients are integers.
    """

    def __init__(self, settings: list[Setting]) -> None:
        self._rows = [monomial_values(*setting) for setting in settings]
        shapes: dict[tuple[Fraction, ...], int] = {}
        for index in range(len(MONOMIALS)):  # of those that these settings cannot tell apart, the lowest stands for all
            shapes.setdefault(tuple(Fraction(row[index], self._rows[0][index]) for row in self._rows), index)
        self._usable = list(shapes.values())
        self._known: dict[tuple[int, ...], Size | None] = {}

    def fit(self, sizes: tuple[int, ...]) -> Size | None:
        """The polynomial that has these values at the settings; None where there is none."""
        if sizes not in self._known:
            self._known[sizes] = self._found(sizes)
        return self._known[sizes]

    def _found(self, sizes: tuple[int, ...]) -> Size | None:
        if len(set(sizes)) == 1:
            return _size({0: sizes[0]})
        for terms in range(1, min(_MOST_TERMS, len(sizes) - 1) + 1):
            for indices in combinations(self._usable, terms):
                solved = self._solved(indices, sizes)
                if solved is not None:
                    return _size(solved)
        return None

    def _solved(self, indices: tuple[int, ...], sizes: tuple[int, ...]) -> dict[int, int] | None:
        """Integer coefficients of these monomials that give every size."""
        first, last = self._rows[0], self._rows[-1]
        if len(indices) == 1:
            (i,) = indices
            found = {i: Fraction(sizes[-1], last[i])}
        else:
            i, j = indices
            determinant = first[i] * last[j] - first[j] * last[i]
            if not determinant:
                return None
            found = {
                i: Fraction(sizes[0] * last[j] - sizes[-1] * first[j], determinant),
                j: Fraction(sizes[-1] * first[i] - sizes[0] * last[i], determinant),
            }
        whole = {index: value.numerator for index, value in found.items() if value.denominator == 1}
        if len(whole) < len(found):
            return None
        exact = all(
            sum(value * row[index] for index, value in whole.items()) == size
            for row, size in zip(self._rows, sizes, strict=True)
        )
        return whole if exact else None


def _size(coefficients: dict[int, int]) -> Size:
    return Size([coefficients.get(index, 0) for index in range(len(ZERO))])

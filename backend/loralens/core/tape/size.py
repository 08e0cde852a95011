"""Sizes as polynomials in the four things a slider moves.

A size is a sum of terms, each an integer coefficient times a monomial of micro batch B, sequence length S and rank r:
an activation of 4096 16-bit values per token is `8192 * B*S`. The ledger adds and subtracts such sizes, so what it
books for one setting is at the same time the formula for all settings: that is what a plan is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

VARIABLES: Final = ("micro_batch_size", "sequence_length", "rank")
# exponents of (B, S, r); products that leave this list would be a modelling error and raise
MONOMIALS: Final[tuple[tuple[int, int, int], ...]] = (
    (0, 0, 0),
    (0, 0, 1),
    (0, 1, 0),
    (1, 0, 0),
    (1, 1, 0),
    (1, 1, 1),
    (0, 2, 0),
    (1, 2, 0),
    (1, 0, 1),
)
_INDEX: Final[dict[tuple[int, ...], int]] = {exponents: index for index, exponents in enumerate(MONOMIALS)}
_WIDTH: Final = len(MONOMIALS)
_PRODUCT: Final = {
    (i, j): _INDEX.get(tuple(a + b for a, b in zip(MONOMIALS[i], MONOMIALS[j], strict=True)))
    for i in range(_WIDTH)
    for j in range(_WIDTH)
}


class Size(tuple[int, ...]):
    """An integer polynomial over `MONOMIALS`; immutable, hashable, cheap to add."""

    __slots__ = ()

    # written out: a plan adds and compares some ten thousand of these, and loops over nine items cost three times as much

    def __add__(self, other: Size) -> Size:  # type: ignore[override]
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = self
        b0, b1, b2, b3, b4, b5, b6, b7, b8 = other
        return Size((a0 + b0, a1 + b1, a2 + b2, a3 + b3, a4 + b4, a5 + b5, a6 + b6, a7 + b7, a8 + b8))

    def __sub__(self, other: Size) -> Size:
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = self
        b0, b1, b2, b3, b4, b5, b6, b7, b8 = other
        return Size((a0 - b0, a1 - b1, a2 - b2, a3 - b3, a4 - b4, a5 - b5, a6 - b6, a7 - b7, a8 - b8))

    def __mul__(self, factor: int) -> Size:  # type: ignore[override]
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = self
        f = factor
        return Size((a0 * f, a1 * f, a2 * f, a3 * f, a4 * f, a5 * f, a6 * f, a7 * f, a8 * f))

    def __rmul__(self, factor: int) -> Size:  # type: ignore[override]
        return self * factor

    def __floordiv__(self, divisor: int) -> Size:
        return Size([a // divisor for a in self])

    def times(self, other: Size) -> Size:
        """Product of two polynomials."""
        result = [0] * _WIDTH
        for i, a in enumerate(self):
            if a:
                for j, b in enumerate(other):
                    if b:
                        index = _PRODUCT[i, j]
                        if index is None:
                            raise ArithmeticError(f"no monomial for {MONOMIALS[i]} x {MONOMIALS[j]}")
                        result[index] += a * b
        return Size(result)

    def at(self, batch: int, sequence: int, rank: int) -> int:
        """The value in bytes (or elements) at one setting."""
        return sum(c * v for c, v in zip(self, monomial_values(batch, sequence, rank), strict=True))

    def at_most(self, other: Size) -> bool:
        """True when no setting can make this size larger than the other."""
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = self
        b0, b1, b2, b3, b4, b5, b6, b7, b8 = other
        return (
            a4 <= b4  # tokens first: most pairs differ there
            and a0 <= b0
            and a1 <= b1
            and a2 <= b2
            and a3 <= b3
            and a5 <= b5
            and a6 <= b6
            and a7 <= b7
            and a8 <= b8
        )

    # the next two go through hundreds of totals thousands of times in a walk: tokens, ranks and constants tell most apart

    def at_most_any(self, others: list[Size]) -> bool:
        """Is one of them never smaller than this size?"""
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = self
        for b in others:
            if a4 <= b[4] and a1 <= b[1] and a0 <= b[0] and a5 <= b[5] and a2 <= b[2] and a3 <= b[3]:
                if a6 <= b[6] and a7 <= b[7] and a8 <= b[8]:
                    return True
        return False

    def exceeded(self, others: list[Size]) -> set[Size]:
        """Those that are never larger than this size."""
        a0, a1, a2, a3, a4, a5, a6, a7, a8 = self
        return {
            b
            for b in others
            if a4 >= b[4] and a1 >= b[1] and a0 >= b[0] and a5 >= b[5] and a2 >= b[2] and a3 >= b[3]
            if a6 >= b[6] and a7 >= b[7] and a8 >= b[8]
        }


def at_rank(size: Size, batch: int, sequence: int) -> Size:
    """The size at a batch and a length; a polynomial of the rank is left."""
    left = [0] * _WIDTH
    for coefficient, (i, j, k) in zip(size, MONOMIALS, strict=True):
        left[_INDEX[0, 0, k]] += coefficient * batch**i * sequence**j
    return Size(left)


def monomial_values(batch: int, sequence: int, rank: int) -> tuple[int, ...]:
    """The monomials' values, in the order of `MONOMIALS`."""
    tokens = batch * sequence
    return (1, rank, sequence, batch, tokens, tokens * rank, sequence * sequence, tokens * sequence, batch * rank)


def _unit(*exponents: int) -> Size:
    return Size([1 if index == _INDEX[exponents] else 0 for index in range(_WIDTH)])


ZERO: Final = Size([0] * _WIDTH)
ONE: Final = _unit(0, 0, 0)
RANK: Final = _unit(0, 0, 1)
SEQUENCE: Final = _unit(0, 1, 0)
BATCH: Final = _unit(1, 0, 0)
TOKENS: Final = _unit(1, 1, 0)
SEQUENCE_SQUARED: Final = _unit(0, 2, 0)
TOKENS_BY_SEQUENCE: Final = _unit(1, 2, 0)

Dim = int | Size
"""A dimension of a weight: a number, or `RANK` while the rank is a variable."""


def volume(shape: Iterable[Dim]) -> Size:
    """Number of elements of a shape whose dimensions may be symbolic."""
    result = ONE
    for dim in shape:
        result = result * dim if isinstance(dim, int) else result.times(dim)
    return result


def share(size: Size, parts: int) -> Size:
    """One GPU's part, rounded up coefficient by coefficient."""
    return size if parts == 1 else Size([-(-coefficient // parts) for coefficient in size])

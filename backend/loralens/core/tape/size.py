"""Sizes as polynomials in the four things a slider moves.

A size is a sum of terms, each an integer coefficient times a monomial of micro batch B, sequence length S and rank r:
an activation of 4096 16-bit values per token is `8192 * B*S`. The ledger adds and subtracts such sizes, so what it
books for one setting is at the same time the formula for all settings: that is what a plan is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import mul
from typing import Final, overload

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


_BITS: Final = 160  # of a coefficient with its sign; configs are bounded so that none comes near
_HALF: Final = 1 << (_BITS - 1)
_LARGEST: Final = 1 << 120  # what a coefficient may be where it is given; sums and multiples have room above
_BYTES: Final = _BITS // 8


def _every(value: int) -> int:
    """The number whose coefficients are all the same."""
    return sum(value << (_BITS * index) for index in range(_WIDTH))


_SIGNS: Final = _every(_HALF)
_SMALL: Final = _every(_LARGEST)
_ABOVE_SMALL: Final = ~_every(2 * _LARGEST - 1)
_SPAN: Final = _BYTES * _WIDTH


class Size:
    """An integer polynomial over `MONOMIALS`; immutable, hashable, cheap to add.

    `packed` holds the coefficients as the digits of one whole number, to the base 2**160: the sum of two sizes is the sum of
    two numbers. A plan adds, multiplies and compares some ten thousand of them, and coefficient by coefficient that takes
    several times as long.
    """

    __slots__ = ("_coefficients", "packed")

    packed: int
    _coefficients: tuple[int, ...]

    def __init__(self, coefficients: Iterable[int]) -> None:
        self._coefficients = found = tuple(coefficients)
        if len(found) != _WIDTH or not all(-_LARGEST <= each <= _LARGEST for each in found):
            raise ArithmeticError(f"{len(found)} coefficients, or one beyond what sizes can hold")
        packed = 0
        for each in reversed(found):
            packed = (packed << _BITS) + each
        self.packed = packed

    @property
    def coefficients(self) -> tuple[int, ...]:
        """In the order of `MONOMIALS`."""
        try:
            return self._coefficients
        except AttributeError:  # the first time that somebody asks
            digits = (self.packed + _SIGNS).to_bytes(_SPAN, "little")  # every digit above zero
            self._coefficients = tuple(
                [int.from_bytes(digits[start : start + _BYTES], "little") - _HALF for start in range(0, _SPAN, _BYTES)]
            )
            return self._coefficients

    def __iter__(self) -> Iterator[int]:
        return iter(self.coefficients)

    def __len__(self) -> int:
        return _WIDTH

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int, ...]: ...
    def __getitem__(self, index: int | slice) -> int | tuple[int, ...]:
        return self.coefficients[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.packed == other.packed

    def __hash__(self) -> int:
        return hash(self.packed)

    def __repr__(self) -> str:
        return repr(self.coefficients)

    def __reduce__(self) -> tuple[type[Size], tuple[tuple[int, ...]]]:
        return Size, (self.coefficients,)

    # made without a call of their own: these are most of what a walk computes

    def __add__(self, other: Size) -> Size:
        size = _new(Size)
        size.packed = self.packed + other.packed
        return size

    def __sub__(self, other: Size) -> Size:
        size = _new(Size)
        size.packed = self.packed - other.packed
        return size

    def __mul__(self, factor: int) -> Size:
        size = _new(Size)
        size.packed = self.packed * factor
        return size

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Size:
        quotient, left = divmod(self.packed, divisor)
        if not left and not (quotient + _SMALL) & _ABOVE_SMALL:  # then every coefficient is divided without a rest
            return unpacked(quotient)
        return Size([each // divisor for each in self.coefficients])

    def scaled(self, factor: int, divisor: int) -> Size:
        """`self * factor // divisor`."""
        if not factor % divisor:
            return unpacked(self.packed * (factor // divisor))
        if not divisor % factor:
            return self // (divisor // factor)
        return self * factor // divisor

    @property
    def plain(self) -> int | None:
        """The number that this size is for every setting; None where it depends on one."""
        return self.packed if -_HALF <= self.packed < _HALF else None

    def times(self, other: Size) -> Size:
        """Product of two polynomials."""
        result = [0] * _WIDTH
        for i, a in enumerate(self.coefficients):
            if a:
                for j, b in enumerate(other.coefficients):
                    if b:
                        index = _PRODUCT[i, j]
                        if index is None:
                            raise ArithmeticError(f"no monomial for {MONOMIALS[i]} x {MONOMIALS[j]}")
                        result[index] += a * b
        return Size(result)

    def at(self, batch: int, sequence: int, rank: int) -> int:
        """The value in bytes (or elements) at one setting."""
        if -_HALF <= self.packed < _HALF:
            return self.packed
        return sum(map(mul, self.coefficients, monomial_values(batch, sequence, rank)))

    def at_most(self, other: Size) -> bool:
        """True when no setting can make this size larger than the other."""
        return covers(other.packed, self.packed)


# a difference of which no coefficient is below zero has, with `_SIGNS` added, the sign's bit in every digit


def covers(one: int, other: int) -> bool:
    """Of two packed sizes: is the first, for every setting, as large as the second?"""
    return (one - other + _SIGNS) & _SIGNS == _SIGNS


def overtaken(one: int, others: list[int]) -> list[int] | None:
    """Of packed sizes, none of which covers another: those that this one covers; None where one of them covers it.

    That one is put first, since it often covers the next one too.
    """
    short, long = _SIGNS - one, _SIGNS + one
    for index, other in enumerate(others):
        if (other + short) & _SIGNS == _SIGNS:
            if index:
                others.insert(0, others.pop(index))
            return None
        if (long - other) & _SIGNS == _SIGNS:  # then none covers it, or it would cover that other one too
            return [each for each in others[index:] if (long - each) & _SIGNS == _SIGNS]
    return []


def unpacked(packed: int) -> Size:
    """The size whose coefficients are the digits of a number."""
    size = _new(Size)
    size.packed = packed
    return size


_new: Final = object.__new__


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

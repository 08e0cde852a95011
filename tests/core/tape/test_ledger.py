"""Booking storages: what is live is what somebody still refers to."""

import pickle
from random import Random

import pytest

from loralens.core.tape.ledger import Ledger, Storage
from loralens.core.tape.size import BATCH, MONOMIALS, ONE, RANK, TOKENS, ZERO, Size, overtaken, volume


def test_a_storage_lives_as_long_as_it_is_referred_to():
    ledger = Ledger()
    ledger.enter("forward")
    first = Storage(ledger, ONE * 100, "activations", "x")
    second = first
    del first
    assert ledger.total == ONE * 100
    del second
    assert ledger.total == ZERO
    assert ledger.entries == {}


def test_peak_is_the_moment_before_a_release():
    ledger = Ledger()
    ledger.enter("forward")
    kept = Storage(ledger, TOKENS * 2, "activations", "kept")
    temporary = Storage(ledger, TOKENS * 6, "activations", "temporary")
    del temporary
    last = Storage(ledger, TOKENS * 1, "activations", "last")
    ledger.settle()
    assert [moment.total for moment in ledger.moments] == [TOKENS * 8]
    del kept, last


def test_moments_that_may_each_be_the_peak_are_both_kept():
    ledger = Ledger()
    ledger.enter("forward")
    for size in (TOKENS * 8, ONE * 1000):
        storage = Storage(ledger, size, "activations", "x")
        del storage
    assert {moment.total for moment in ledger.moments} == {TOKENS * 8, ONE * 1000}


def test_renaming_changes_no_total():
    ledger = Ledger()
    storage = Storage(ledger, ONE * 7, "temporaries", "gradient")
    storage.rename("gradients", "weight")
    assert ledger.entries == {("gradients", "weight"): ONE * 7}
    assert ledger.total == ONE * 7


def test_sizes_are_polynomials():
    assert (TOKENS * 3 + ONE * 5).at(2, 10, 8) == 65
    assert volume((4096, RANK)).at(1, 1, 8) == 32_768
    assert TOKENS.times(RANK).at(2, 3, 5) == 30
    assert BATCH.times(RANK).at(2, 3, 5) == 10
    assert (ONE * 10).at_most(TOKENS + ONE * 10)
    with pytest.raises(ArithmeticError):
        TOKENS.times(TOKENS)
    assert isinstance(TOKENS * 2, Size)


def test_sums_products_and_comparisons_are_those_of_the_coefficients():
    random = Random(7)

    def coefficients():
        return [random.choice([0, 0, random.randint(-(10**15), 10**15), random.randint(0, 9) * 12]) for _ in MONOMIALS]

    for _ in range(500):
        a, b, factor, divisor = (
            coefficients(),
            coefficients(),
            random.randint(0, 2**22),
            random.choice([1, 2, 12, 4096]),
        )
        one, other = Size(a), Size(b)
        assert list(one + other) == [x + y for x, y in zip(a, b, strict=True)]
        assert list(one - other) == [x - y for x, y in zip(a, b, strict=True)]
        assert list(one * factor) == [x * factor for x in a]
        assert list(one // divisor) == [x // divisor for x in a]
        assert list((one * divisor) // divisor) == a
        assert list(one.scaled(factor, divisor)) == [x * factor // divisor for x in a]
        assert one.at_most(other) == all(x <= y for x, y in zip(a, b, strict=True))
        larger = Size([x + random.randint(0, 2) for x in a])
        assert one.at_most(larger)
        assert overtaken(one.packed, [larger.packed]) is None
        assert overtaken(one.packed, [other.packed]) == (
            None if one.at_most(other) else [other.packed] if other.at_most(one) else []
        )
        assert one + other - other == one
        assert hash(one + other - other) == hash(one)
        assert one.plain == (a[0] if not any(a[1:]) else None)
        assert pickle.loads(pickle.dumps(one)) == one
    assert (ONE * -7).plain == -7
    with pytest.raises(ArithmeticError):
        Size([2**121, *[0] * 8])
    with pytest.raises(ArithmeticError):
        Size([1, 2])


def test_a_size_overtakes_all_that_it_covers_among_sizes_that_do_not_cover_each_other():
    chance = Random(2)
    for _ in range(200):
        kept: list[int] = []
        met: list[Size] = []
        for _ in range(12):
            size = Size([chance.randint(-2, 2) if index < 3 else 0 for index in range(len(MONOMIALS))])
            lower = overtaken(size.packed, kept)
            assert (lower is None) == any(size.at_most(one) for one in met)
            if lower is not None:
                kept = [one for one in kept if one not in lower] + [size.packed]
            met.append(size)
        assert sorted(kept) == sorted(
            {one.packed for one in met if not any(one.at_most(other) for other in met if other != one)}
        )

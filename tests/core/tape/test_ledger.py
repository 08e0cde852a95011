"""Booking storages: what is live is what somebody still refers to."""

import pytest

from loralens.core.tape.ledger import Ledger, Storage
from loralens.core.tape.size import BATCH, ONE, RANK, TOKENS, ZERO, Size, volume


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

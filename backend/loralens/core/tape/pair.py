"""One ledger for a walk that answers for two cards: what both hold is booked once, for both.

The two differ in their attention kernels alone (`on_both`): what a kernel of one card holds is booked in that card's ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from loralens.core.tape.ledger import Entry, Ledger, Moment, Recording, Storage, Totals
from loralens.core.tape.size import ZERO, Size

if TYPE_CHECKING:
    from loralens.core.tape.validity import Validity

OTHER: Final[Entry] = ("", "")  # what a change comes to on the other card


class KernelsApart(Exception):
    """The two cards cannot be walked together: more than their attention kernels' own tensors would differ."""


@dataclass(slots=True)
class PairedMoment(Moment):
    """What is held on one card, and beside it the sum on the other."""

    other: Size


class PairedLedger(Ledger):
    """Books in two ledgers. What is read of it is the first one's, which keeps everything; of the other there are sums."""

    def __init__(self) -> None:
        self.own, self.other = Ledger(), Totals()
        self._others: list[tuple[Recording, Recording]] = []  # the other card's beside each recording

    @property
    def phase(self) -> str:
        """The phase, which is the same for both."""
        return self.own.phase

    @phase.setter
    def phase(self, phase: str) -> None:
        self.own.phase = self.other.phase = phase

    @property
    def where(self) -> str:
        """What runs."""
        return self.own.where

    @where.setter
    def where(self, where: str) -> None:
        self.own.where = where

    @property
    def rising(self) -> bool:
        """Has something been booked on either that is in no moment yet?"""
        return self.own.rising or self.other.rising

    def book(self, size: Size, category: str, label: str) -> int:
        """Add `size` on both."""
        self.other.book(size, category, label)
        return self.own.book(size, category, label)

    def release(self, size: Size, category: str, label: str, number: int = 0) -> None:
        """Take `size` off both."""
        self.other.release(size, category, label)
        self.own.release(size, category, label)

    def rename(self, size: Size, old: Entry, new: Entry, number: int = 0) -> None:
        """Book under another name."""
        self.own.rename(size, old, new)

    def settle(self) -> None:
        """Keep the present moment of each."""
        self.other.settle()
        self.own.settle()

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self.other.enter(phase)
        self.own.enter(phase)

    def mark(self, label: str) -> None:
        """A point of the first one's timeline."""
        self.own.mark(label)

    def snapshot(self, label: str | None = None) -> PairedMoment:
        """The present moment."""
        here = self.own.snapshot(label)
        return PairedMoment(here.phase, here.label, here.total, here.entries, self.other.total)

    def difference(self, before: Moment) -> dict[Entry, Size]:
        """What has been added since `before`, on the other card under a key of its own."""
        assert isinstance(before, PairedMoment)
        change, other = self.own.difference(before), self.other.total - before.other
        return change | {OTHER: other} if other.packed else change

    def apply(self, change: dict[Entry, Size], times: int) -> None:
        """Book a change on each."""
        own, other = _of_each(change)
        self.own.apply(own, times)
        self.other.apply(other, times)

    def repeat(self, change: dict[Entry, Size], times: int, label: str) -> None:
        """Apply a change `times` more on each."""
        own, other = _of_each(change)
        self.other.repeat(other, times, label)
        self.own.repeat(own, times, label)

    def record(self) -> Recording:
        """Write down what follows on each."""
        recording = self.own.record()
        self._others.append((recording, self.other.record()))
        return recording

    def recorded(self, recording: Recording) -> None:
        """What is recorded ends here."""
        self.own.recorded(recording)
        self.other.recorded(self._beside(recording))

    def again(self, recording: Recording, change: dict[Entry, Size], times: int, renamed: Callable[[str], str]) -> None:
        """A stretch that was recorded on each, further on."""
        own, other = _of_each(change)
        self.other.again(self._beside(recording), other, times, renamed)
        self.own.again(recording, own, times, renamed)

    def _beside(self, recording: Recording) -> Recording:
        return next(other for own, other in self._others if own is recording)


def _of_each(change: dict[Entry, Size]) -> tuple[dict[Entry, Size], dict[Entry, Size]]:
    own = {key: size for key, size in change.items() if key != OTHER}
    return own, {OTHER: change[OTHER]} if OTHER in change else {}


@dataclass(slots=True)
class OtherCard:
    """A card beside the one that is asked about, whose peaks the same walk gives."""

    accelerator: str
    pair: PairedLedger
    validity: Validity  # of what its own kernels decide
    waiting: int = field(default=0)  # attentions that have run forward on both and not yet backward

    def sums(self) -> tuple[Size, ...]:
        """Those that can be its peak.

        Raises:
            KernelsApart: backward left an attention out.
        """
        if self.waiting:
            raise KernelsApart
        return tuple(moment.total for moment in self.pair.other.moments)


def halves(storage: Storage | None) -> tuple[Storage | None, Storage | None]:
    """A storage's bytes on each card, as a kernel of that card holds them; the storage itself stands for both until it goes.

    Raises:
        KernelsApart: it is of one card alone.
    """
    if storage is None:
        return None, None
    if not hasattr(storage, "parts"):
        storage.parts = cut(storage)
    return storage.parts


def cut(storage: Storage) -> tuple[Storage, Storage]:
    """What a storage holds on each card, which it does not hold any more itself.

    Raises:
        KernelsApart: it is of one card alone.
    """
    pair = storage.ledger
    if not isinstance(pair, PairedLedger):
        raise KernelsApart
    own, other = storage.booked_in(pair.own), storage.booked_in(pair.other)
    storage.size = ZERO
    return own, other


def joined(pair: PairedLedger, own: Storage, other: Storage) -> Storage:
    """The reverse of `cut`: one storage for what two of one size hold, one on each card."""
    whole = own.booked_in(pair)
    own.size = other.size = ZERO
    return whole


def both(pair: PairedLedger, own: Storage, other: Storage) -> Storage:
    """A storage that stands for two as `halves` has them."""
    whole = own.booked_in(pair)
    whole.size, whole.parts = ZERO, (own, other)
    return whole

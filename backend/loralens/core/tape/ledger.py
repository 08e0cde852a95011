"""The ledger: every storage is booked once, from its allocation to its release.

A `Storage` lives as in PyTorch. What the forward pass makes is held by the names of the code that mirrors the model's,
by nodes of the graph, and by what is marked as held (`Tape.local`, `Tape.held`); `Tape.end` says that a name is done with.
What backward makes is held by autograd's own slots (an input buffer, a result on its way, a `.grad`), which count
themselves here as PyTorch's engine does: the last one to let go releases it. Memory only grows at an allocation, so the
moments worth keeping are the last ones before something is released; a moment that another one exceeds in every
coefficient can never be a peak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from loralens.core.tape.size import ZERO, Size, overtaken, unpacked

CATEGORIES: Final = ("weights", "adapter", "gradients", "optimizer_state", "activations", "logits", "temporaries")

Entry = tuple[str, str]  # category, label


@dataclass(slots=True)
class Moment:
    """What was held at one instant: bytes per (category, label)."""

    phase: str
    label: str
    total: Size
    entries: dict[Entry, Size]

    def by_category(self) -> list[Size]:
        """Bytes per category, in the order of `CATEGORIES`."""
        sums = dict.fromkeys(CATEGORIES, ZERO)
        for (category, _), size in self.entries.items():
            sums[category] = sums[category] + size
        return list(sums.values())


@dataclass(slots=True)
class TimelinePoint:
    """A point of the timeline, or `repeat` of them on a straight line from `first` to `last`."""

    phase: str
    label: str
    repeat: int
    first: Moment
    last: Moment


@dataclass(slots=True)
class Recording:
    """The moments and points of a stretch of the walk, to be had once more further on (`Ledger.again`)."""

    first_point: int
    sums: list[int] = field(default_factory=list)  # packed totals of the moments
    moments: dict[int, Moment] = field(default_factory=dict)  # by their packed totals
    points: list[TimelinePoint] = field(default_factory=list)

    def consider(self, packed: int, moment: Callable[[], Moment]) -> None:
        """A moment that another one covers is covered by it further on too."""
        lower = overtaken(packed, self.sums)
        if lower is None:
            return
        for each in lower:
            self.sums.remove(each)
            del self.moments[each]
        self.sums.insert(0, packed)
        self.moments[packed] = moment()


@dataclass(slots=True)
class Ledger:
    """Books storages and keeps the moments that can be a phase's peak."""

    phase: str = "setup"
    where: str = ""
    packed: int = 0  # of the sum of all entries: see `Size`
    entries: dict[Entry, Size] = field(default_factory=dict)
    points: list[TimelinePoint] = field(default_factory=list)  # of the timeline
    _moments: dict[int, Moment] = field(default_factory=dict)  # by the order in which they were met
    _met: int = 0
    _rising: bool = False
    _recordings: list[Recording] = field(default_factory=list)  # that are under way
    _highest: dict[str, list[int]] = field(default_factory=dict)  # the packed totals of `moments`, by phase
    _numbers: dict[tuple[str, int], int] = field(default_factory=dict)  # which moment has such a total

    @property
    def total(self) -> Size:
        """The sum of all entries."""
        return unpacked(self.packed)

    @property
    def rising(self) -> bool:
        """Has something been booked that is in no moment yet?"""
        return self._rising

    @property
    def moments(self) -> list[Moment]:
        """The candidates, in the order in which they were met."""
        return list(self._moments.values())

    @moments.setter
    def moments(self, moments: list[Moment]) -> None:
        self._moments = dict(enumerate(moments, self._met + 1))
        self._met += len(moments)
        self._highest, self._numbers = {}, {}

    def keep(self, moment: Moment) -> None:
        """One more candidate, whatever the others are."""
        self._met += 1
        self._moments[self._met] = moment

    def book(self, size: Size, category: str, label: str) -> int:
        """Add `size` to an entry; the number is the storage's where a ledger tells them apart (see `events`)."""
        key, entries = (category, label), self.entries
        entries[key] = entries[key] + size if key in entries else size
        self.packed += size.packed
        self._rising = True
        return 0

    def release(self, size: Size, category: str, label: str, number: int = 0) -> None:
        """Take `size` off an entry, keeping the moment before if memory had been rising."""
        if self._rising:
            self.settle()
        key, entries = (category, label), self.entries
        held = entries[key]
        if held.packed == size.packed:
            del entries[key]
        else:
            entries[key] = held - size
        self.packed -= size.packed

    def rename(self, size: Size, old: Entry, new: Entry, number: int = 0) -> None:
        """Book the same bytes under another entry: nothing is allocated or released."""
        rising, self._rising = self._rising, False
        self.release(size, *old)
        self.book(size, *new)
        self._rising = rising

    def settle(self) -> None:
        """Keep the present moment as a candidate unless another one of its phase covers it."""
        self._rising = False
        if self.phase != "setup":
            self._consider(self.packed, self.snapshot)

    def _consider(self, packed: int, moment: Callable[[], Moment]) -> None:
        for recording in self._recordings:
            recording.consider(packed, moment)
        highest = self._highest.setdefault(self.phase, [])
        lower = overtaken(packed, highest)
        if lower is None:
            return
        for each in lower:
            highest.remove(each)
            del self._moments[self._numbers.pop((self.phase, each))]
        highest.insert(0, packed)
        self._met += 1
        self._numbers[self.phase, packed] = self._met
        self._moments[self._met] = moment()

    def snapshot(self, label: str | None = None) -> Moment:
        """The present moment."""
        return Moment(self.phase, self.where if label is None else label, self.total, dict(self.entries))

    def mark(self, label: str) -> None:
        """Keep the present moment as a point of the timeline."""
        here = self.snapshot(label)
        self.points.append(TimelinePoint(self.phase, label, 1, here, here))

    def difference(self, before: Moment) -> dict[Entry, Size]:
        """What has been added (or, negative, released) since `before`."""
        changes = {
            key: self.entries.get(key, ZERO) - before.entries.get(key, ZERO) for key in self.entries | before.entries
        }
        return {key: size for key, size in changes.items() if size.packed}

    def repeat(self, change: dict[Entry, Size], times: int, label: str) -> None:
        """Apply a change `times` more: layers of a kind that need not be walked one by one."""
        if self._rising:
            self.settle()
        self.apply(change, 1)
        self.settle()
        first = self.snapshot(label)
        self.apply(change, times - 1)
        self.settle()
        self.points.append(TimelinePoint(self.phase, label, times, first, self.snapshot(label)))

    def record(self) -> Recording:
        """Write down what follows, until `recorded`."""
        self._recordings.append(recording := Recording(len(self.points)))
        return recording

    def recorded(self, recording: Recording) -> None:
        """What is recorded ends here."""
        self._recordings.remove(recording)
        recording.points = self.points[recording.first_point :]

    def again(self, recording: Recording, change: dict[Entry, Size], times: int, renamed: Callable[[str], str]) -> None:
        """A stretch that was recorded, `times` further on, where each time `change` was added; its labels are renamed."""
        added = {key: size * times for key, size in change.items()}
        moved = sum(added.values(), ZERO)

        def further(moment: Moment) -> Moment:
            entries = dict(moment.entries)
            for key, size in added.items():
                entries[key] = left = entries.get(key, ZERO) + size
                if not left.packed:
                    del entries[key]
            return Moment(moment.phase, renamed(moment.label), moment.total + moved, entries)

        for moment in recording.moments.values():
            self._consider(moment.total.packed + moved.packed, partial(further, moment))
        for point in recording.points:
            first, last = further(point.first), further(point.last)
            self.points.append(TimelinePoint(point.phase, renamed(point.label), point.repeat, first, last))
        self.apply(change, 1)
        self.settle()

    def apply(self, change: dict[Entry, Size], times: int) -> None:
        """Book a change `times` over, without keeping a moment."""
        for key, size in change.items():
            left = self.entries.get(key, ZERO) + size * times
            if left.packed:
                self.entries[key] = left
            else:
                self.entries.pop(key, None)
            self.packed += size.packed * times

    def enter(self, phase: str) -> None:
        """Begin a phase; what is already held counts towards its peak."""
        if self._rising:
            self.settle()
        self.phase = phase
        self.where = phase
        self.settle()


class Totals(Ledger):
    """Keeps sums alone, without what they are made of and without a timeline: for who asks how high the peak is and no more.

    For steps in which nothing asks the ledger for its entries.
    """

    def book(self, size: Size, category: str, label: str) -> int:
        """Add `size`."""
        self.packed += size.packed
        self._rising = True
        return 0

    def release(self, size: Size, category: str, label: str, number: int = 0) -> None:
        """Take `size` off."""
        if self._rising:
            self.settle()
        self.packed -= size.packed

    def rename(self, size: Size, old: Entry, new: Entry, number: int = 0) -> None:
        """No sum changes."""

    def snapshot(self, label: str | None = None) -> Moment:
        """The present sum."""
        return Moment(self.phase, "", self.total, {})

    def mark(self, label: str) -> None:
        """No timeline."""

    def difference(self, before: Moment) -> dict[Entry, Size]:
        """What has been added since `before`, under no name."""
        return {("", ""): self.total - before.total}

    def apply(self, change: dict[Entry, Size], times: int) -> None:
        """Add a change `times` over."""
        for size in change.values():
            self.packed += size.packed * times


class Storage:
    """A block of memory; allocated when made, released once, when nothing holds it any more.

    `slots`: how many places of autograd hold it as a gradient. They decide what is added in place and what is cloned.
    `parts`: what holds its bytes in its place (`pair`), where something does.
    """

    __slots__ = ("category", "label", "ledger", "number", "parts", "size", "slots")
    parts: tuple[Storage, Storage]

    def __init__(self, ledger: Ledger, size: Size, category: str, label: str) -> None:
        self.ledger = ledger
        self.size = ZERO  # until it is booked: a ledger may refuse
        self.category = category
        self.label = label
        self.slots = 0
        self.number = ledger.book(size, category, label)
        self.size = size

    def rename(self, category: str, label: str) -> None:
        """Book the same bytes under another name (a gradient buffer becomes `.grad`)."""
        self.ledger.rename(self.size, (self.category, self.label), (category, label), self.number)
        self.category, self.label = category, label

    def booked_in(self, ledger: Ledger) -> Storage:
        """A storage of the same bytes, which another ledger has booked already."""
        found = Storage.__new__(Storage)
        found.ledger, found.size, found.category, found.label = ledger, self.size, self.category, self.label
        found.slots = found.number = 0
        return found

    def hold(self) -> None:
        """One more slot of autograd holds this."""
        self.slots += 1

    def let_go(self) -> None:
        """A slot of autograd holds this no more; the last one releases it."""
        self.slots -= 1
        if not self.slots:
            self.release()

    def hand_over(self) -> None:
        """A slot of autograd gives this to whoever holds it next."""
        self.slots -= 1

    def release(self) -> None:
        """Give the memory back, unless that has been done."""
        size = self.size
        if size.packed:
            self.size = ZERO
            self.ledger.release(size, self.category, self.label, self.number)

    __del__ = release  # the last name of the forward pass is gone

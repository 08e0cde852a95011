"""Read the peaks off a ledger: replay its events and look at what lives at a moment."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from loralens.lab.trace.categories import CATEGORIES, CATEGORY_OF
from loralens.lab.trace.ledger import Recorded, TracedStorage, TraceLedger


@dataclass(frozen=True, slots=True)
class TracedPeak:
    """The highest level of a phase: after which event, and how many bytes lived."""

    phase: str
    event: int
    live_bytes: int


def phase_peaks(ledger: TraceLedger | Recorded, *, rounded: bool = False) -> dict[str, TracedPeak]:
    """The peak of every phase, the level at its beginning included (as `reset_peak_memory_stats` has it)."""
    sizes = [s.rounded_bytes if rounded else s.size_bytes for s in ledger.storages]
    marks = [*ledger.marks, ("", len(ledger.events))]
    level = sum(sizes[e - 1] if e > 0 else -sizes[-e - 1] for e in ledger.events[: marks[0][1]])
    peaks: dict[str, TracedPeak] = {}
    for (phase, first), (_, last) in pairwise(marks):
        best, best_event = level, first
        for position in range(first, last):
            event = ledger.events[position]
            if event > 0:
                level += sizes[event - 1]
                if level > best:
                    best, best_event = level, position + 1
            else:
                level -= sizes[-event - 1]
        if phase not in peaks or best > peaks[phase].live_bytes:
            peaks[phase] = TracedPeak(phase, best_event, best)
    return peaks


def live_at(ledger: TraceLedger | Recorded, event: int) -> list[TracedStorage]:
    """The storages that live after so many events, in order of birth."""
    living: dict[int, None] = {}
    for entry in ledger.events[:event]:
        if entry > 0:
            living[entry - 1] = None
        else:
            del living[-entry - 1]
    return [ledger.storages[index] for index in living]


def kinds(storages: list[TracedStorage]) -> dict[str, int]:
    """Bytes per fine kind, largest first."""
    total: dict[str, int] = defaultdict(int)
    for storage in storages:
        total[storage.kind] += storage.size_bytes
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def categories(storages: list[TracedStorage]) -> dict[str, int]:
    """Bytes per category of the contract."""
    total = dict.fromkeys(CATEGORIES, 0)
    for storage in storages:
        total[CATEGORY_OF[storage.kind]] += storage.size_bytes
    return total

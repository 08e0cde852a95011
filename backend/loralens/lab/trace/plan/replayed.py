"""An aligned trace booked in the engine's own ledger, which keeps the moments that can be a peak."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.tape.ledger import Ledger, TimelinePoint
from loralens.core.tape.size import ZERO
from loralens.lab.factors import PREFIX
from loralens.lab.trace.categories import CATEGORY_OF

if TYPE_CHECKING:
    from loralens.core.tape.ledger import Entry, Moment
    from loralens.lab.trace.ledger import TracedStorage
    from loralens.lab.trace.plan.aligned import Aligned

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def starred(name: str) -> str:
    """A name of the model's own without layer indices, so that layers of a kind share one entry."""
    return _NUMBER.sub("*", name.removeprefix(PREFIX))


def replay(aligned: Aligned) -> Ledger:
    """Moments and timeline of the step."""
    record, ledger = aligned.record, Ledger()
    entries = [_entry(storage) for storage in record.storages]
    numbers = [0] * len(entries)
    begins = {event: phase for phase, event in record.marks}
    layer = ""
    for position, event in enumerate(record.events):
        if position in begins:
            if ledger.phase != "setup":
                ledger.mark(layer or ledger.phase)
            ledger.enter(begins[position])
            if ledger.phase == "forward" and not ledger.points:
                ledger.points.append(_at_rest(ledger))
            layer = ""
        index = abs(event) - 1
        size, entry = aligned.sizes[index], entries[index]
        if size == ZERO:
            continue
        if event < 0:
            ledger.release(size, *entry, numbers[index])
            continue
        here = _layer(record.storages[index].owner)
        if here and here != layer and ledger.phase in ("forward", "backward"):
            if layer:
                ledger.mark(layer)
            layer = here
        ledger.where = ": ".join(dict.fromkeys(entry[1].split(": ")))
        numbers[index] = ledger.book(size, *entry)
    ledger.settle()
    ledger.mark(ledger.phase)
    ledger.points = _folded(ledger.points)
    return ledger


def _at_rest(ledger: Ledger) -> TimelinePoint:
    here = replace(ledger.snapshot("setup"), phase="setup")
    return TimelinePoint("setup", "setup", 1, here, here)


def _layer(owner: str) -> str:
    """The numbered layer that a module is or lies in; empty outside of all."""
    found = re.match(r"(.*?\.\d+)(?:\.|$)", owner)
    return found[1] if found else ""


def _entry(storage: TracedStorage) -> Entry:
    category = CATEGORY_OF[storage.kind]
    if storage.kind in ("weight", "adapter", "buffer", "quantization_state"):
        return category, starred(storage.owner)
    if storage.kind == "optimizer_state":
        return category, "optimizer states"
    if storage.kind == "input":
        return category, "batch"
    operator = storage.op.removesuffix(" (scratch)")
    return category, f"{starred(storage.owner) or 'model'}: {operator}"


def _folded(points: list[TimelinePoint]) -> list[TimelinePoint]:
    """Layers of a kind on a straight line as one segment of the timeline."""
    folded: list[TimelinePoint] = []
    for point in points:
        label = starred(point.label)
        point = TimelinePoint(point.phase, label, 1, _named(point.first, label), _named(point.last, label))
        before = folded[-1] if folded else None
        if before is not None and (before.phase, before.label) == (point.phase, label) and _in_line(before, point):
            folded[-1] = TimelinePoint(point.phase, label, before.repeat + 1, before.first, point.last)
        else:
            folded.append(point)
    return folded


def _in_line(before: TimelinePoint, point: TimelinePoint) -> bool:
    if before.repeat == 1:
        return True
    step = point.last.total - before.last.total
    return step * (before.repeat - 1) == before.last.total - before.first.total


def _named(moment: Moment, label: str) -> Moment:
    return replace(moment, label=label)

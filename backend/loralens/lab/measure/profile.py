"""What the profiler saw on the CPU: peaks of live tensors by phase, and the scratch that kernels took inside themselves.

Some CPU kernels (oneDNN's 16-bit products where the processor has matrix units) take a buffer and give it back before
they return. CUDA's kernels take theirs from a workspace that is counted apart, and the engine counts none, so the two
are told apart here: a block that one operator takes and gives back itself is scratch, all others are tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MEMORY = "[memory]"


class Event(Protocol):
    """What is used of a profiler's event (`torch._C._autograd._KinetoEvent`)."""

    def name(self) -> str:
        """The operator, or `[memory]`."""

    def start_ns(self) -> int:
        """When it began."""

    def duration_ns(self) -> int:
        """How long it took."""

    def nbytes(self) -> int:
        """Bytes taken, or given back (negative), of a memory event."""

    def start_thread_id(self) -> int:
        """Which thread."""


@dataclass(frozen=True, slots=True)
class ProfiledPeaks:
    """Bytes. `tensors`: the largest sum of live tensors by phase; `scratch`: the most that kernels took beyond it."""

    tensors: dict[str, int]
    scratch: int


def read(events: Sequence[Event], prefix: str) -> ProfiledPeaks:
    """Peaks of the spans whose names begin with `prefix`, over everything that was allocated while the profiler ran."""
    changes = sorted((e for e in events if e.name() == MEMORY), key=lambda e: e.start_ns())
    spans = sorted((e for e in events if e.name() != MEMORY), key=lambda e: (e.start_ns(), -e.duration_ns()))
    scratch = _scratch(changes, spans)
    tensors: dict[str, int] = {}
    beyond = 0
    for span in (e for e in spans if e.name().startswith(prefix)):
        name = span.name().removeprefix(prefix)
        live = sum(e.nbytes() for i, e in enumerate(changes) if e.start_ns() < span.start_ns() and i not in scratch)
        highest = with_scratch = live
        taken = 0
        for index, change in enumerate(changes):
            if not span.start_ns() <= change.start_ns() <= _end(span):
                continue
            if index in scratch:
                taken += change.nbytes()
            else:
                live += change.nbytes()
            highest, with_scratch = max(highest, live), max(with_scratch, live + taken)
        tensors[name] = max(tensors.get(name, 0), highest)
        beyond = max(beyond, with_scratch - highest)
    return ProfiledPeaks(tensors, beyond)


def _end(event: Event) -> int:
    return event.start_ns() + event.duration_ns()


def _scratch(changes: Sequence[Event], spans: Sequence[Event]) -> set[int]:
    """Indices of changes by which an operator took a block and gave it back before it returned."""
    found: set[int] = set()
    stacks: dict[int, list[tuple[Event, list[int]]]] = {}  # by thread: open operators, and what each took itself
    begun = 0
    for index, change in enumerate(changes):
        while begun < len(spans) and spans[begun].start_ns() <= change.start_ns():
            stack = stacks.setdefault(spans[begun].start_thread_id(), [])
            while stack and _end(stack[-1][0]) < spans[begun].start_ns():
                stack.pop()
            stack.append((spans[begun], []))
            begun += 1
        stack = stacks.get(change.start_thread_id(), [])
        while stack and _end(stack[-1][0]) < change.start_ns():
            stack.pop()
        if not stack or not stack[-1][0].name().startswith("aten::"):
            continue
        taken = stack[-1][1]
        if change.nbytes() > 0:
            taken.append(index)
            continue
        match = next((one for one in reversed(taken) if changes[one].nbytes() == -change.nbytes()), None)
        if match is not None:
            taken.remove(match)
            found |= {match, index}
    return found

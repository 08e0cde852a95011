"""A step's requests as arrays: what is alive before each at many settings at once, and which can be the one that fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loralens.core.tape.size import monomial_values

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
NOTHING: Final = -1e30


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows `start` to `end` (exclusive) come `times` more, each time with `change` more alive before them; shape (monomials,)."""

    start: int
    end: int
    change: Floats
    times: int


@dataclass(frozen=True, slots=True)
class AtSettings:
    """The requests of a step at some settings; every array but `times` has shape (requests, settings).

    Attributes:
        alive, after: bytes alive before a request and behind it, the first time.
        change: what is added before it each time that it comes again, `times` more.
        first: by how much it exceeds all before it, the first time.
        below: what it must exceed when it comes again, of its own run; `earlier`: of what was before that run.
        most: shape (settings,), the fullest of all.
    """

    alive: Floats
    after: Floats
    change: Floats
    times: Floats
    first: Floats
    below: Floats
    earlier: Floats
    most: Floats

    def exceeds(self, rows: Places, settings: Places, again: Floats) -> Floats:
        """By how much requests exceed all before them when they come for the `again`-th time more; 0 or less: never."""
        at = rows, settings
        later = self.after[at] - np.maximum(self.below[at], self.earlier[at] - again * self.change[at])
        return np.where(again > 0, later, self.first[at])


@dataclass(frozen=True, slots=True)
class StepArrays:
    """Sizes and what is alive before, as polynomials; shape (requests, monomials)."""

    sizes: Floats
    alive: Floats
    runs: tuple[Repeats, ...]

    def at(self, values: Floats) -> AtSettings:
        """At settings; `values`: their monomials, shape (monomials, settings)."""
        alive = self.alive @ values
        after = alive + self.sizes @ values
        shape = alive.shape
        first, below = np.zeros(shape), np.full(shape, NOTHING)
        earlier, change, times = np.zeros(shape), np.zeros(shape), np.zeros((shape[0], 1))
        most, done = alive[0], 0
        for run in (*self.runs, Repeats(shape[0], shape[0], np.zeros(len(values)), 0)):
            most = _fill(first, after, most, done, run.start)
            if run.end > run.start:
                part = slice(run.start, run.end)
                before, step, fullest = most, run.change @ values, after[part].max(axis=0)
                most = _fill(first, after, most, run.start, run.end)
                most = np.maximum(most, fullest + np.maximum(0, step) * run.times)
                below[part] = np.maximum(_before(after[part], np.full(shape[1], NOTHING)), fullest - step)
                earlier[part], change[part], times[part] = before, step, run.times
            done = run.end
        return AtSettings(alive, after, change, times, first, below, earlier, most)


def monomials(settings: Sequence[tuple[int, int, int]]) -> Floats:
    """Of batches, lengths and ranks; shape (monomials, settings)."""
    return np.array([monomial_values(*one) for one in settings], dtype=np.float64).T


def _before(after: Floats, most: Floats) -> Floats:
    """The fullest before each row."""
    found: Floats = np.maximum.accumulate(np.vstack([most[None], after[:-1]]), axis=0)
    return found


def _fill(first: Floats, after: Floats, most: Floats, start: int, end: int) -> Floats:
    """By how much each of these rows exceeds all before it; the fullest behind them."""
    if end <= start:
        return most
    part = after[start:end]
    first[start:end] = part - _before(part, most)
    fullest: Floats = np.maximum(most, part.max(axis=0))
    return fullest

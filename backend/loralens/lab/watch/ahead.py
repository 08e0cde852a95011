"""Will a batch of this shape fit? Answered before it runs, from the plan and from what the steps so far have shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MOST_SLOPE, LEAST_SLOPE = 1.25, 0.9
"""How far from the plan's bytes for a larger batch the device's may be: an assumption, wider than the residuals of docs/accuracy.md."""
APART: Final = 1.2
"""Two shapes tell a slope where one takes so many times the other's bytes."""


class Ahead:
    """Corrects the prediction by the largest step seen: what a device holds beside it stays, and what grows may grow otherwise.

    `predict`: bytes of a step of (micro batch, tokens of a sample).
    """

    def __init__(self, predict: Callable[[int, int], int]) -> None:
        self._predict = predict
        self._known: dict[tuple[int, int], int] = {}
        self._seen: dict[tuple[int, int], int] = {}  # shape -> the most that was measured
        self._fitted: list[tuple[int, int]] = []  # shapes that ran; none is inside another

    def ran(self, batch: int, length: int, measured: int | None) -> None:
        """A step of this shape is over; `measured` None: nothing exact was read."""
        shape = (batch, length)
        if not self._covered(shape):
            self._fitted = [one for one in self._fitted if not _inside(one, shape)] + [shape]
        if measured is not None and measured > self._seen.get(shape, 0):
            self._seen[shape] = measured

    def shapes(self) -> list[tuple[int, int]]:
        """The largest shapes that ran."""
        return list(self._fitted)

    def needed_bytes(self, batch: int, length: int) -> int:
        """What a step of this shape will take on this device."""
        asked = self.predicted_bytes(batch, length)
        if not self._seen:
            return asked
        rows = sorted((self.predicted_bytes(*shape), measured) for shape, measured in self._seen.items())
        (low, first), (high, last) = rows[0], rows[-1]
        slope = (last - first) / (high - low) if high > APART * low else 1.0
        return last + round(min(MOST_SLOPE, max(LEAST_SLOPE, slope)) * (asked - high))

    def predicted_bytes(self, batch: int, length: int) -> int:
        """The plan's own figure."""
        shape = (batch, length)
        if shape not in self._known:
            self._known[shape] = self._predict(batch, length)
        return self._known[shape]

    def fits(self, batch: int, length: int, limit: int) -> bool:
        """Will it fit? A shape inside one that ran does."""
        return self._covered((batch, length)) or self.needed_bytes(batch, length) <= limit

    def _covered(self, shape: tuple[int, int]) -> bool:
        return any(_inside(shape, one) for one in self._fitted)


def _inside(small: tuple[int, int], large: tuple[int, int]) -> bool:
    return small[0] <= large[0] and small[1] <= large[1]

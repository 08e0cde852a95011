"""Where a step is traced, so that a plan may hold from one setting to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.lab.trace.plan.sizes import Setting

STEP: Final = (
    64  # fitted lengths differ by multiples of it: chunks, masks in aligned rows and kernels' blocks divide it
)
_BATCH, _RANKS, _LENGTHS = 1_024, (4, 256), (128, 32_768)  # ranges that are tried first, widened to what is asked
_UNKNOWN_POSITIONS: Final = 8_192


@dataclass(frozen=True, slots=True)
class Box:
    """Ranges of batch, length and rank, both ends included; equal ends: it does not vary."""

    batch: tuple[int, int]
    length: tuple[int, int]
    rank: tuple[int, int]

    def fitted(self) -> list[Setting]:
        """Three settings that tell all monomials apart, from corner to corner; one where nothing varies."""
        if self.pinned:
            return [(self.batch[0], self.length[0], self.rank[0])]
        batches = self._spread(self.batch, 1, 1)
        lengths = self._spread(self.length, 5 * STEP, STEP)
        ranks = self._spread(self.rank, 17, 1)
        return list(zip(batches, lengths, ranks, strict=True))

    def between(self, offset: int) -> Setting:
        """A setting inside that had no part in the fit; its length is off the fitted ones' raster by `offset`."""
        batch, rank = (low + (high - low) // 5 if high > low else low for low, high in (self.batch, self.rank))
        low, high = self.length
        length = low + (high - low) // (2 * STEP) * STEP + offset if high > low else low
        return batch, min(length, high), rank

    @property
    def pinned(self) -> bool:
        """Is it one setting?"""
        return all(low == high for low, high in (self.batch, self.length, self.rank))

    def of_one(self) -> Box:
        """With a single sample in the batch, where PyTorch often needs no copy."""
        return replace(self, batch=(1, 1))

    @staticmethod
    def _spread(ends: tuple[int, int], first: int, raster: int) -> tuple[int, int, int]:
        low, high = ends
        middle = min(low + first, low + (high - low) // (2 * raster) * raster)
        return low, middle, high


@dataclass(frozen=True, slots=True)
class Boxes:
    """The widest box first, then narrower ones around what is asked.

    Attributes:
        ranked: does the method have a rank?
    """

    config: Mapping[str, Any]
    recipe: Recipe
    ranked: bool

    def first(self) -> Box:
        """As wide as the model's positions allow."""
        rank = self.recipe.lora.rank
        ranks = (min(_RANKS[0], rank), max(_RANKS[1], rank)) if self.ranked else (rank, rank)
        batches = (2, max(_BATCH, self.recipe.micro_batch_size))
        return Box(batches, self._lengths(_LENGTHS[0], min(_LENGTHS[1], _positions(self.config))), ranks)

    def narrower(self, box: Box, *, resident: bool, grows: bool) -> Box | None:
        """What to try after a box that did not fit; None after a single setting.

        `resident`: what lives before the step did not fit. `grows`: the number of operators differs from length to length.
        """
        asked = self.recipe
        rank, length, batch = asked.lora.rank, asked.sequence_length, asked.micro_batch_size
        if resident and box.rank != (rank, rank):
            return replace(box, rank=(rank, rank))
        near = self._lengths(*_thresholds(self.config, length, box.length))
        if box.length != (length, length):
            return replace(box, length=(length, length) if grows or near == box.length else near)
        if box.rank != (rank, rank):
            return replace(box, rank=(rank, rank))
        return replace(box, batch=(batch, batch)) if box.batch != (batch, batch) else None

    def _lengths(self, low: int, high: int) -> tuple[int, int]:
        """Ends that differ from the asked length by multiples of STEP."""
        asked = self.recipe.sequence_length
        return asked - max(0, asked - low) // STEP * STEP, asked + max(0, high - asked) // STEP * STEP


def _positions(config: Mapping[str, Any]) -> int:
    found = [part.get("max_position_embeddings") for part in _parts(config)]
    return max([one for one in found if isinstance(one, int) and one > 0], default=_UNKNOWN_POSITIONS)


def _thresholds(config: Mapping[str, Any], asked: int, ends: tuple[int, int]) -> tuple[int, int]:
    """The nearest numbers of the config around the asked length: windows, chunks and the like change a step there."""
    numbers = {value for part in _parts(config) for value in part.values() if type(value) is int}
    below = [value + 1 for value in numbers if ends[0] <= value < asked]
    above = [value for value in numbers if asked <= value <= ends[1]]
    return max(below, default=ends[0]), min(above, default=ends[1])


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [config, *(value for value in config.values() if isinstance(value, Mapping))]

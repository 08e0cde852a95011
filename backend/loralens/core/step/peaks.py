"""How high a step's peak is, and no more."""

from __future__ import annotations

from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING

from loralens.core.question.parallelism import Parallelism
from loralens.core.tape.size import Size, monomial_values
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Peaks:
    """The sums that can be a step's peak, and where they hold."""

    sums: tuple[Size, ...]
    validity: Validity

    def at(self, batch: int, sequence: int, rank: int) -> int:
        """The peak in bytes."""
        values = monomial_values(batch, sequence, rank)
        return max(sum(map(mul, size, values)) for size in self.sums)


def sums_are_enough(recipe: Recipe) -> bool:
    """Does a walk of this recipe ask its ledger for sums alone, never for their entries?"""
    return recipe.parallelism == Parallelism() and recipe.objective.type == "sft" and not recipe.keeps_outputs

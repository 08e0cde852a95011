"""Where a plan holds: every decision that looked at batch, length or rank narrows the range of settings it is true for."""

from __future__ import annotations

from math import gcd
from typing import Final

from loralens.core.question.recipe import Recipe

LARGEST: Final = {"micro_batch_size": 65_536, "sequence_length": 16_777_216, "rank": 65_536}


class Validity:
    """The settings of one walk, and the ranges within which all its decisions would have been the same."""

    def __init__(self, recipe: Recipe) -> None:
        self._values = {
            "micro_batch_size": recipe.micro_batch_size,
            "sequence_length": recipe.sequence_length,
            "rank": recipe.lora.rank,
        }
        self.ranges = {name: [1, high] for name, high in LARGEST.items()}
        self.remainders: dict[str, tuple[int, int]] = {}  # variable -> modulus and what is left over

    def exceeds(self, variable: str, threshold: int) -> bool:
        """Is the variable above the threshold? The plan is valid on this side of it only."""
        low, high = self.ranges[variable]
        above = self._values[variable] > threshold
        self.ranges[variable] = [max(low, threshold + 1), high] if above else [low, min(high, threshold)]
        return above

    def remainder(self, variable: str, modulus: int) -> int:
        """The variable modulo a number; the plan is valid for values with the same remainder only."""
        left = self._values[variable] % modulus
        known = self.remainders.setdefault(variable, (modulus, left))
        if known != (modulus, left):
            raise ValueError(f"{variable} is looked at modulo {known[0]} and {modulus}")
        return left

    def pinned(self, variable: str) -> int:
        """The variable as a number: the plan then holds for this one only."""
        value = self._values[variable]
        self.exceeds(variable, value)
        self.exceeds(variable, value - 1)
        return value

    def steps(self, variable: str, step: int) -> int:
        """How many steps the variable begins; the plan is valid for as many only."""
        count = -(-self._values[variable] // step)
        self.exceeds(variable, count * step)
        self.exceeds(variable, (count - 1) * step)
        return count

    def pinned_tokens(self) -> int:
        """Tokens of a micro batch as a number: the plan then holds for this batch and length only."""
        return self.pinned("micro_batch_size") * self.pinned("sequence_length")

    def covers(self, batch: int, sequence: int, rank: int) -> bool:
        """Is a setting inside?"""
        values = (batch, sequence, rank)
        for (low, high), value in zip(self.ranges.values(), values, strict=True):
            if not low <= value <= high:
                return False
        if not self.remainders:
            return True
        named = dict(zip(self.ranges, values, strict=True))
        return all(named[name] % modulus == left for name, (modulus, left) in self.remainders.items())

    def narrow(self, other: Validity) -> None:
        """Hold only where another one of the same settings holds too."""
        self.ranges = {
            name: [max(low, other.ranges[name][0]), min(high, other.ranges[name][1])]
            for name, (low, high) in self.ranges.items()
        }
        self.remainders |= other.remainders

    def in_samples(self, rows: int) -> None:
        """Said of samples of so many rows each, where the batch was looked at in rows."""
        low, high = self.ranges["micro_batch_size"]
        self.ranges["micro_batch_size"] = [-(-low // rows), high // rows]
        if "micro_batch_size" in self.remainders:
            modulus, _ = self.remainders["micro_batch_size"]
            shared = gcd(modulus, rows)
            # rows * samples = left (modulo modulus), whose solutions repeat every modulus / shared
            samples = self._values["micro_batch_size"] // rows
            self.remainders["micro_batch_size"] = (modulus // shared, samples % (modulus // shared))

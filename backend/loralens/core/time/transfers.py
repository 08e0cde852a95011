"""What goes between GPUs in a step, as seconds: by dimension and place, and summed by how it is waited for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.time.communication import seconds_of_row, sent
from loralens.core.time.polynomial import NOTHING, Polynomial, plus, value_of

if TYPE_CHECKING:
    from loralens.core.catalogue import Gpu
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.traffic import Traffic
    from loralens.core.time.rates import Constants


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is sent over one dimension of the mesh: seconds of a micro batch, and once in a step."""

    over: str
    way: str  # waited, ring or hidden
    leaves: bool  # goes between machines
    bytes_per_second: float
    each: Polynomial
    once: Polynomial


@dataclass(frozen=True, slots=True)
class TransferTimes:
    """Seconds between GPUs, by how they are waited for: of a micro batch, and once in a step."""

    waited: Polynomial = NOTHING
    waited_once: Polynomial = NOTHING
    ring: Polynomial = NOTHING
    hidden: Polynomial = NOTHING
    hidden_once: Polynomial = NOTHING

    def at(self, values: Sequence[float]) -> tuple[float, ...]:
        """All five at one setting."""
        fields = (self.waited, self.waited_once, self.ring, self.hidden, self.hidden_once)
        return tuple(0.0 if one is NOTHING else value_of(one, values) for one in fields)


def transfers_of(
    traffic: Traffic, recipe: Recipe, gpu: Gpu, constants: Constants, link: float | None = None
) -> tuple[Transfer, ...]:
    """What is sent, by dimension and place; arguments as `time_plan` has them."""
    found: dict[tuple[str, str, bool, float], dict[bool, Polynomial]] = {}
    for row in sent(traffic, recipe.parallelism):
        rate, seconds = seconds_of_row(row, gpu, constants, link)
        sums = found.setdefault((row.over, row.way, row.route.leaves, rate), {})
        sums[row.once] = plus(sums.get(row.once, NOTHING), seconds)
    return tuple(Transfer(*key, sums.get(False, NOTHING), sums.get(True, NOTHING)) for key, sums in found.items())


def between_of(transfers: Iterable[Transfer]) -> TransferTimes:
    """Their seconds by how they are waited for."""
    sums: dict[str, Polynomial] = {}
    for row in transfers:
        for name, seconds in ((row.way, row.each), (f"{row.way}_once", row.once)):
            if seconds is not NOTHING:
                sums[name] = plus(sums.get(name, NOTHING), seconds)
    return TransferTimes(**sums)

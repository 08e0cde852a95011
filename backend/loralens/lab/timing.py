"""Fair timing: every round runs all candidates in a new random order, and only times of one round are compared.

Four faults are made impossible here. A fixed order gives every candidate always the same neighbour, whose leftovers
in the caches it is then timed with: so the order is shuffled anew for each round, not rotated. A background load that
comes and goes shifts whole rounds: so ratios are formed within a round and their median is reported. The first
calls pay for what later ones do not: so they are not counted. And a copy of the weights that the last candidate has
left in the cache is not the next one's: all of them rotate through the copies together.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from loralens.lab.device import Device
from loralens.lab.measured import Interval

WARM_UP_CALLS = 2
SAMPLE_SECONDS = 200e-6
"""A sample lasts at least this long, so that reading the clock (about 0.3 µs) stays under 0.2% of it."""
MIN_ROUNDS = 5
MAX_ROUNDS = 400
SLOW_RATIO = 3.0
"""A candidate that takes longer than this many dense calls runs in some rounds only, or it would eat the budget."""


def quantile(values: list[float], fraction: float) -> float:
    """Quantile with linear interpolation between the closest ranks.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.25)
    1.75
    """
    if not values:
        raise ValueError("no samples")
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def interval(samples: list[float]) -> Interval:
    """Median, quartiles and the raw samples."""
    first, median, third = (quantile(samples, part) for part in (0.25, 0.5, 0.75))
    return Interval(median=median, q1=first, q3=third, samples=samples)


@dataclass(slots=True)
class Timings:
    """Samples by candidate and round."""

    reference: str
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)
    wall_per_device: list[float] = field(default_factory=list)
    rounds: int = 0

    def of(self, name: str) -> list[float]:
        """Seconds per call of a candidate, in the order of the rounds."""
        return list(self.seconds.get(name, {}).values())

    def ratios(self, name: str, reference: str | None = None) -> list[float]:
        """A candidate's time ÷ the reference's, in each round in which both ran."""
        base = self.seconds.get(reference or self.reference, {})
        return [value / base[at] for at, value in self.seconds.get(name, {}).items() if base.get(at)]

    def contention(self) -> float | None:
        """Wall time ÷ CPU time (median over the reference's samples): above 1.1 others took the processor."""
        return quantile(self.wall_per_device, 0.5) if self.wall_per_device else None


def race(
    device: Device,
    candidates: Mapping[str, Callable[[int], object]],
    *,
    reference: str,
    seconds: float,
    copies: int = 1,
    flush: Callable[[], None] | None = None,
    seed: int = 0,
    always: frozenset[str] = frozenset(),
    min_rounds: int = MIN_ROUNDS,
    max_rounds: int = MAX_ROUNDS,
) -> Iterator[Timings]:
    """Time candidates against each other; yields after every round what is known so far.

    Args:
        device: has the clock.
        candidates: name to a function of the index of the call; it uses that index to pick its copy of the weights.
        reference: the candidate that ratios refer to; it runs in every round.
        seconds: stop after this much wall time, but not before `min_rounds`.
        copies: how many copies of the weights the candidates rotate over.
        flush: called before every sample, outside the clock, when rotating does not leave the cache.
        seed: of the orders.
        always: candidates that run in every round, however slow.
        min_rounds: rounds at the least, whatever they take.
        max_rounds: rounds at the most.
    """
    rng = random.Random(seed)
    timings = Timings(reference)
    expected: dict[str, float] = {}
    deadline = time.perf_counter() + seconds
    for name, call in candidates.items():
        expected[name] = min(device.time(call, index, 1).seconds for index in range(WARM_UP_CALLS))
    repeats = {name: _repeats(expected[name], copies if flush else 64) for name in candidates}
    every = {
        name: max(1, round(expected[name] / expected[reference] / SLOW_RATIO))
        for name in candidates
        if name not in always and name != reference
    }
    # One counter for all: with one each, two neighbours would often take the same copy, and the second find it cached.
    index = 0
    for number in range(max_rounds):
        if number >= min_rounds and time.perf_counter() >= deadline:
            return
        order = [name for name in candidates if number % every.get(name, 1) == 0]
        rng.shuffle(order)
        for name in order:
            if flush is not None:
                flush()
            sample = device.time(candidates[name], index, repeats[name])
            index += repeats[name]
            timings.seconds.setdefault(name, {})[number] = sample.seconds
            if name == reference and device.kind == "cpu" and sample.seconds > 0:
                timings.wall_per_device.append(sample.wall_seconds / sample.seconds)
        timings.rounds = number + 1
        yield timings


def _repeats(seconds: float, most: int) -> int:
    return max(1, min(most, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-9))))

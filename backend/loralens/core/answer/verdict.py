"""Three words for whether something is held: it fits, it is tight, it does not fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

VERDICTS: Final = ("fits", "tight", "does_not_fit")
STEP: Final = "step"
UNSAID: Final = "host_memory_unsaid"
DECIDES: Final = {
    "length": "the sequence is too short for the pictures, video or sound of a sample: training stops with an error",
    STEP: "the step's memory",
    "left_out": "weights beside the step, of unknown size",
    "evaluation": "the evaluation between steps",
    "host_memory": "the host memory that a machine has",
    UNSAID: "what host memory a machine has is not said (host_memory)",
    "shared_memory": "GPU and processor share one pool of memory",
    "engine": "the engine that generates beside the step",
}
"""What can decide a verdict, in the order in which equals are named."""


def verdict(needed: tuple[int, int], memory_bytes: int) -> str:
    """`fits`: the device holds what is safe; `tight`: what is needed at least."""
    least, safe = needed
    if least > memory_bytes:
        return "does_not_fit"
    return "fits" if safe <= memory_bytes else "tight"


class Ruling(NamedTuple):
    """A verdict, and what it is about."""

    by: str
    verdict: str


def decided(judged: Iterable[Ruling]) -> Ruling:
    """Of several, the one that decides: the worst, and of equals the first."""
    return max(judged, key=lambda one: VERDICTS.index(one.verdict))


def worst(*verdicts: str) -> str:
    """Of several, as a run needs all of them."""
    return max(verdicts, key=VERDICTS.index)

"""Verdicts of a card: their words, and the exit codes by which a script tells them apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from loralens.cli.render import GIB, gib
from loralens.core.answer.verdict import DECIDES, STEP

if TYPE_CHECKING:
    from loralens.core.answer.shapes import Fit
    from loralens.core.question.shapes import Pair
    from loralens.planner.shapes import FitGpu
    from loralens.trainers.shapes import CheckedGpu


EXIT_CODES: Final = {"fits": 0, "tight": 4, "does_not_fit": 5}
WORDS: Final = {"fits": "fits", "tight": "tight", "does_not_fit": "does not fit"}


def exit_code(verdicts: Iterable[str]) -> int:
    """The code of the best verdict: of several methods one that fits is enough.

    >>> exit_code(["does_not_fit", "tight"]), exit_code(["fits"])
    (4, 0)
    """
    return min(EXIT_CODES[verdict] for verdict in verdicts)


def sentence(gpu: FitGpu | Fit | CheckedGpu, verdict: str, needed: Pair, decided_by: str) -> str:
    """One line: what the step needs at least and to be safe, what the card has, what follows, and why where the step alone fits."""
    return f"{gpu['name']}: {needs(needed, gpu['memory_bytes'])}: {WORDS[verdict]}{because(decided_by)}"


def because(decided_by: str) -> str:
    """What decides, in brackets; nothing where the step alone does."""
    return "" if decided_by == STEP else f" ({DECIDES[decided_by]})"


def needs(needed: Pair, memory_bytes: int) -> str:
    """`needs at least 19.40, to be safe 23.30 of 23.99 GiB`."""
    least, safe = (f"{size / GIB:,.2f}" for size in needed)
    return f"needs at least {least}, to be safe {safe} of {gib(memory_bytes)}"

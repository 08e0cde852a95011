"""Verdicts of a card: their words, and the exit codes by which a script tells them apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from loralens.cli.render import gib

EXIT_CODES: Final = {"fits": 0, "tight": 4, "does_not_fit": 5}
WORDS: Final = {"fits": "fits", "tight": "tight", "does_not_fit": "does not fit"}
SENTENCES: Final = {
    "fits": "the step fits",
    "tight": "tight: the step fits unless fragmentation takes more than is left",
    "does_not_fit": "the step does not fit",
}


def exit_code(verdicts: Iterable[str]) -> int:
    """The code of the best verdict: of several methods one that fits is enough.

    >>> exit_code(["does_not_fit", "tight"]), exit_code(["fits"])
    (4, 0)
    """
    return min(EXIT_CODES[verdict] for verdict in verdicts)


def sentence(gpu: dict[str, Any], verdict: str, needed: list[int]) -> str:
    """One line: what the card has, whether the step fits, what it needs at least and to be safe."""
    least, safe = (gib(size) for size in needed)
    title = gpu["name"] if gpu["id"].startswith("custom:") else f"{gpu['name']}, {gib(gpu['memory_bytes'])}"
    return f"{title}: {SENTENCES[verdict]}. It needs {least} at least, {safe} to be safe."

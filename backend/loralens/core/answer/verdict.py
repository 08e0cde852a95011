"""Three words for whether something is held: it fits, it is tight, it does not fit."""

from __future__ import annotations

from typing import Final

VERDICTS: Final = ("fits", "tight", "does_not_fit")


def verdict(needed: tuple[int, int], memory_bytes: int, *, unknown: bool = False) -> str:
    """`fits`: the device holds what is safe; `tight`: what is needed at least, or more is there that nobody counted."""
    least, safe = needed
    if least > memory_bytes:
        return "does_not_fit"
    return "fits" if safe <= memory_bytes and not unknown else "tight"


def worst(*verdicts: str) -> str:
    """Of several, as a run needs all of them."""
    return max(verdicts, key=VERDICTS.index)

"""What was computed of each phase, beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from loralens.watched import WatchedPhase

PHASES: Final = ("forward", "backward", "optimizer")
BAND: Final = 0.05
"""How far from the computed bytes a measured phase may be without being called off: an assumption (docs/accuracy.md)."""


def phase_rows(predicted: Mapping[str, int], measured: Mapping[str, int], *, exact: bool) -> list[WatchedPhase]:
    """A row for each phase; `exact`: what is measured is what is predicted, tensors."""
    return [_row(name, predicted.get(name), measured.get(name), exact) for name in PHASES]


def _row(name: str, predicted: int | None, measured: int | None, exact: bool) -> WatchedPhase:
    known = exact and predicted is not None and measured is not None
    return {
        "phase": name,
        "predicted_bytes": predicted,
        "band_bytes": None if predicted is None else [round(predicted * (1 - BAND)), round(predicted * (1 + BAND))],
        "measured_bytes": measured,
        "inside": abs((measured or 0) - (predicted or 0)) <= BAND * (predicted or 0) if known else None,
    }

"""Where the printed bands come from: residuals of published runs, and how well bands made from them hold other runs.

A band's ends are quantiles of a residual. Whether they are honest is seen out of sample: the ends are taken from all other
rows, or from the rows of all other sources, and the row that was left out is looked up in that band.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from loralens.core.answer import card, overhead
from loralens.validation.rows import Outcome

LEVELS: Final = (
    0.06,
    0.05,
    0.04,
    0.03,
    0.02,
    0.01,
    0.0,
)  # share of the rows left out at each end, narrowest band first
WANTED: Final = 0.85  # share of rows that a band must hold, out of sample as well

Residual = Callable[[Outcome], float]
End = Callable[[Outcome, float], float]


@dataclass(frozen=True, slots=True)
class BandForm:
    """A kind of band: of which figure, on what it stands, and how an end follows from a residual."""

    figure: str
    stands_on: str
    applies: Callable[[Outcome], bool]
    printed: tuple[float, float, float]
    low: tuple[Residual, End]
    high: tuple[Residual, End]


def _reserved(outcome: Outcome) -> bool:
    return outcome.row.metric == "reserved" and outcome.varies


def _device(outcome: Outcome) -> bool:
    return outcome.row.metric in ("device", "unclear") and not outcome.several and not outcome.varies


def _device_several(outcome: Outcome) -> bool:
    return outcome.row.metric in ("device", "unclear") and outcome.several and not outcome.varies


def _part(base: Callable[[Outcome], int]) -> tuple[Residual, End]:
    """A percentage of something."""
    return (
        lambda outcome: 100 * outcome.row.measured_bytes / base(outcome),
        lambda outcome, percent: base(outcome) * percent / 100,
    )


def _pool() -> tuple[Residual, End]:
    """A percentage of the simulated pool beside a measured context; never less than what is allocated and a small one."""
    context = card.CONTEXT_MEASURED
    return (
        lambda outcome: 100 * (outcome.row.measured_bytes - context) / outcome.fixed_bytes,
        lambda outcome, percent: max(
            outcome.allocated_bytes + card.CONTEXT_LOW, outcome.fixed_bytes * percent / 100 + context
        ),
    )


_ALLOCATED = _part(lambda outcome: outcome.allocated_bytes)
_FIXED = _part(lambda outcome: outcome.fixed_bytes)
_VARYING = _part(lambda outcome: outcome.varying_bytes)
_BESIDE_CONTEXT = _pool()

_PEAK, _POOL = "the allocated peak (rule)", "the simulated pool"
_SEVERAL = "device, several GPUs"
FORMS: Final = (
    BandForm("reserved, varying lengths", _POOL, _reserved, overhead.SIMULATED_RESERVED, _FIXED, _VARYING),
    BandForm("device, one GPU", _POOL, _device, overhead.SIMULATED_POOL, _BESIDE_CONTEXT, _BESIDE_CONTEXT),
    BandForm(_SEVERAL, _POOL, _device_several, overhead.SIMULATED_POOL_SEVERAL, _BESIDE_CONTEXT, _BESIDE_CONTEXT),
    BandForm("reserved, varying lengths", _PEAK, _reserved, overhead.RULE_RESERVED, _ALLOCATED, _ALLOCATED),
    BandForm("device, one GPU", _PEAK, _device, overhead.RULE_DEVICE, _ALLOCATED, _ALLOCATED),
    BandForm(_SEVERAL, _PEAK, _device_several, overhead.RULE_DEVICE_SEVERAL, _ALLOCATED, _ALLOCATED),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a way of making bands did: the share of rows inside, and the median width as a part of what was measured."""

    inside: float
    width: float


@dataclass(frozen=True, slots=True)
class BandCalibration:
    """A form's ends from all rows, and how such ends hold rows that had no part in them."""

    form: BandForm
    rows: int
    sources: int
    level: float
    ends: tuple[float, float, float]
    printed: Coverage
    without_row: Coverage
    without_source: Coverage


def calibrate(outcomes: Iterable[Outcome]) -> list[BandCalibration]:
    """Every form's ends, at the narrowest level that holds enough rows out of sample.

    Where no level does with whole sources left out (they are few, and differ), it is enough that it does with single rows.
    """
    known = [outcome for outcome in outcomes if outcome.estimate is not None]
    return [_calibrate(form, rows) for form in FORMS if (rows := [o for o in known if form.applies(o)])]


def _calibrate(form: BandForm, rows: list[Outcome]) -> BandCalibration:
    def tried(level: float) -> tuple[float, Coverage, Coverage]:
        by_row = _left_out(form, rows, level, lambda outcome: outcome.row.id)
        return level, by_row, _left_out(form, rows, level, lambda outcome: outcome.row.project)

    every = [tried(level) for level in LEVELS]
    enough = [one for one in every if one[1].inside >= WANTED]
    honest = [one for one in enough if one[2].inside >= WANTED]
    level, without_row, without_source = (honest or enough or every[-1:])[0]
    middle = quantile([form.low[0](row) for row in rows], 0.5)
    low, high = _ends(form, rows, level)
    printed = _held([_band(form, row, (form.printed[0], form.printed[2])) for row in rows], rows)
    sources = len({row.row.project for row in rows})
    return BandCalibration(form, len(rows), sources, level, (low, middle, high), printed, without_row, without_source)


def _left_out(form: BandForm, rows: list[Outcome], level: float, group: Callable[[Outcome], Any]) -> Coverage:
    """Bands for each group of rows from the rows of all other groups (from its own where there is no other)."""
    bands, judged = [], []
    for one in dict.fromkeys(group(row) for row in rows):
        inside = [row for row in rows if group(row) == one]
        ends = _ends(form, [row for row in rows if group(row) != one] or inside, level)
        bands += [_band(form, row, ends) for row in inside]
        judged += inside
    return _held(bands, judged)


def _ends(form: BandForm, rows: list[Outcome], level: float) -> tuple[float, float]:
    return (
        quantile([form.low[0](row) for row in rows], level),
        quantile([form.high[0](row) for row in rows], 1 - level),
    )


def _band(form: BandForm, row: Outcome, ends: tuple[float, float]) -> tuple[float, float]:
    return form.low[1](row, ends[0]), form.high[1](row, ends[1])


def _held(bands: list[tuple[float, float]], rows: list[Outcome]) -> Coverage:
    measured = [row.row.measured_bytes for row in rows]
    inside = sum(low <= m <= high for (low, high), m in zip(bands, measured, strict=True))
    width = statistics.median((high - low) / m for (low, high), m in zip(bands, measured, strict=True))
    return Coverage(inside / len(rows), width)


def quantile(values: list[float], share: float) -> float:
    """The value below which a share of them lies, between two of them by proportion."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)

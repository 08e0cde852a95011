"""Two results side by side: which differences are larger than the noise of both runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from loralens.lab.bench.schema import BenchmarkResult, Point, Row


class ComparedRow(BaseModel):
    """One variant at one point in both runs. Ratios are to dense of the same run, so machines can be compared."""

    id: str
    name: str
    ratio_a: float | None
    ratio_b: float | None
    change: float | None = Field(description="ratio_b ÷ ratio_a.")
    verdict: Literal["faster", "slower", "same", "only in a", "only in b"] = Field(
        description="b against a; same: the quartiles overlap, or the change is within the noise of either run."
    )


class ComparedPoint(BaseModel):
    """One point that both runs have."""

    value: int | str | None
    noise: float = Field(description="Larger half-width of the noise floor's quartiles around 1, of both runs.")
    rows: list[ComparedRow]


class BenchmarkComparison(BaseModel):
    """What changed from run a to run b."""

    points: list[ComparedPoint]
    differences: list[str] = Field(description="Settings and machine facts that differ, in words.")


def compare(a: BenchmarkResult, b: BenchmarkResult) -> BenchmarkComparison:
    """Compare point by point and variant by variant."""
    points_b = {_key(point): point for point in b.points}
    points = [_point(point, points_b[_key(point)]) for point in a.points if _key(point) in points_b]
    return BenchmarkComparison(points=points, differences=_differences(a, b))


def _key(point: Point) -> str:
    return f"{point.value}"


def _point(a: Point, b: Point) -> ComparedPoint:
    noise = max(_noise(a), _noise(b))
    rows_a, rows_b = ({row.id: row for row in point.rows if row.ratio is not None} for point in (a, b))
    names = list(dict.fromkeys([*rows_a, *rows_b]))
    return ComparedPoint(value=a.value, noise=noise, rows=[_row(rows_a.get(n), rows_b.get(n), noise) for n in names])


def _noise(point: Point) -> float:
    return 0.0 if point.noise is None else max(abs(point.noise.q1 - 1), abs(point.noise.q3 - 1))


def _row(a: Row | None, b: Row | None, noise: float) -> ComparedRow:
    known = a or b
    assert known is not None
    ratio_a = None if a is None or a.ratio is None else a.ratio.median
    ratio_b = None if b is None or b.ratio is None else b.ratio.median
    if a is None or b is None or not ratio_a or not ratio_b or a.ratio is None or b.ratio is None:
        verdict: Any = "only in b" if a is None else "only in a"
        return ComparedRow(id=known.id, name=known.name, ratio_a=ratio_a, ratio_b=ratio_b, change=None, verdict=verdict)
    change = ratio_b / ratio_a
    overlap = a.ratio.q1 <= b.ratio.q3 and b.ratio.q1 <= a.ratio.q3
    verdict = "same" if overlap or abs(change - 1) <= noise else "faster" if change < 1 else "slower"
    return ComparedRow(id=known.id, name=known.name, ratio_a=ratio_a, ratio_b=ratio_b, change=change, verdict=verdict)


def _differences(a: BenchmarkResult, b: BenchmarkResult) -> list[str]:
    found = []
    for label, left, right in (
        ("setting", a.request.model_dump(), b.request.model_dump()),
        ("machine", a.machine, b.machine),
    ):
        for name in {**left, **right}:
            if name not in ("load_average", "clocks") and left.get(name) != right.get(name):
                found.append(f"{label} {name}: {left.get(name)} against {right.get(name)}")
    return found

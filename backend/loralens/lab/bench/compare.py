"""Two results side by side: which differences are larger than the noise of both runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from loralens.lab.bench.schema import BenchmarkResult, Point
from loralens.lab.matmul.catalogue import REFERENCE
from loralens.lab.measured import Interval, Row


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

    value: int | str | None = Field(description="On the axis that both sweep; null for single points.")
    noise: float = Field(description="Larger half-width of the noise floor's quartiles around 1, of both runs.")
    rows: list[ComparedRow]


class Difference(BaseModel):
    """One thing that was not the same in both runs."""

    kind: Literal["setting", "machine"]
    name: str
    a: Any
    b: Any


class BenchmarkComparison(BaseModel):
    """What changed from run a to run b."""

    points: list[ComparedPoint] = Field(description="Empty when the runs have no point in common.")
    differences: list[str] = Field(description="Settings and machine facts that differ, in words.")
    changed: list[Difference] = Field(default_factory=list, description="The same, with both values.")


def compare(a: BenchmarkResult, b: BenchmarkResult) -> BenchmarkComparison:
    """Compare point by point and variant by variant."""
    points = [_point(value, left, right) for value, left, right in _pairs(a, b)]
    changed = _changed(a, b)
    words = [f"{item.kind} {item.name}: {item.a} against {item.b}" for item in changed]
    return BenchmarkComparison(points=points, differences=words, changed=changed)


def _pairs(a: BenchmarkResult, b: BenchmarkResult) -> list[tuple[int | str | None, Point, Point]]:
    """Points that belong together: the same value of the same axis, else equal sizes; a mode only with itself."""
    if a.request.mode != b.request.mode:
        return []
    if _axis(a) == _axis(b):
        right = {f"{point.value}": point for point in b.points}
        return [(point.value, point, right[f"{point.value}"]) for point in a.points if f"{point.value}" in right]
    swept = a if _axis(a) is not None else b
    sizes = {_sizes(point): point for point in b.points}
    return [
        ((left if swept is a else sizes[_sizes(left)]).value, left, sizes[_sizes(left)])
        for left in a.points
        if _sizes(left) in sizes
    ]


def _axis(result: BenchmarkResult) -> str | None:
    return None if result.request.sweep is None else result.request.sweep.axis


def _sizes(point: Point) -> str:
    names = ("tokens", "in_features", "out_features", "rank", "dtype", "adapters", "requests")
    return "/".join(f"{point.settings.get(name)}" for name in names)


def _point(value: int | str | None, a: Point, b: Point) -> ComparedPoint:
    noise = max(_noise(a), _noise(b))
    # Dense is 1 in both by definition: nothing to compare.
    rows_a, rows_b = (
        {row.id: row for row in point.rows if row.ratio is not None and row.id != REFERENCE} for point in (a, b)
    )
    names = list(dict.fromkeys([*rows_a, *rows_b]))
    return ComparedPoint(value=value, noise=noise, rows=[_row(rows_a.get(n), rows_b.get(n), noise) for n in names])


def _noise(point: Point) -> float:
    return 0.0 if point.noise is None else max(abs(point.noise.q1 - 1), abs(point.noise.q3 - 1))


def _row(a: Row | None, b: Row | None, noise: float) -> ComparedRow:
    known = a or b
    assert known is not None
    left, right = _ratio(a), _ratio(b)
    ratio_a, ratio_b = (None if ratio is None else ratio.median for ratio in (left, right))
    if left is None or right is None or not ratio_a or not ratio_b:
        verdict: Any = "only in b" if a is None else "only in a"
        return ComparedRow(id=known.id, name=known.name, ratio_a=ratio_a, ratio_b=ratio_b, change=None, verdict=verdict)
    change = ratio_b / ratio_a
    overlap = left.q1 <= right.q3 and right.q1 <= left.q3
    within = max(change, 1 / change) - 1 <= noise  # the same whichever run comes first
    verdict = "same" if overlap or within else "faster" if change < 1 else "slower"
    return ComparedRow(id=known.id, name=known.name, ratio_a=ratio_a, ratio_b=ratio_b, change=change, verdict=verdict)


def _ratio(row: Row | None) -> Interval | None:
    return None if row is None else row.ratio


def _changed(a: BenchmarkResult, b: BenchmarkResult) -> list[Difference]:
    found = []
    sides: tuple[tuple[Literal["setting", "machine"], dict[str, object], dict[str, object]], ...] = (
        ("setting", a.request.model_dump(mode="json"), b.request.model_dump(mode="json")),
        ("machine", a.machine, b.machine),
    )
    for kind, left, right in sides:
        for name in {**left, **right}:
            if name not in ("load_average", "clocks") and left.get(name) != right.get(name):
                found.append(Difference(kind=kind, name=name, a=left.get(name), b=right.get(name)))
    return found

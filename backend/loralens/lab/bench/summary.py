"""A finished run in one line, for lists: what was asked, how far it came, and its headline ratio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from loralens.lab.words import Axis, BenchmarkRequest


class Headline(BaseModel):
    """The fastest variant with a separate adapter within the error bound.

    Which one it was at most points, and its smallest and largest ratio over all points.
    """

    variant: str
    name: str
    low: float
    high: float
    points: int = Field(description="At how many points `variant` was the recommendation.")


class RunSummary(BaseModel):
    """One run of the history. Times are seconds since 1970."""

    id: str
    status: Literal["queued", "running", "finished", "failed", "cancelled", "interrupted"]
    place: int | None = Field(description="Jobs ahead of it on its device; null once it has ended.")
    created_seconds: float
    ended_seconds: float | None
    device: str
    machine: str | None = Field(description="Name of the processor or GPU; null if the run did not come that far.")
    request: BenchmarkRequest
    axis: Axis | None
    measured: int = Field(description="Points that were measured.")
    skipped: int = Field(description="Points that were skipped.")
    headline: Headline | None = Field(
        description="Null if no measured variant keeps the adapter separate and is exact."
    )
    doubtful: bool = Field(description="Whether the run itself says why it may not be trusted.")


class BenchmarkHistory(BaseModel):
    """Newest runs first."""

    runs: list[RunSummary]
    next: str | None = Field(description="Pass as `before` for older runs; null at the end.")


def headline(points: Sequence[Mapping[str, Any]]) -> Headline | None:
    """What the points recommend, together. `points`: data of `point` events."""
    best = [point["recommendation"] for point in points if point["recommendation"]]
    ratios = [item["ratio"] for item in best if item["ratio"] is not None]
    if not ratios:
        return None
    (variant, count), *_ = Counter(item["variant"] for item in best).most_common(1)
    name = next(item["name"] for item in best if item["variant"] == variant)
    return Headline(variant=variant, name=name, low=min(ratios), high=max(ratios), points=count)


def told(events: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, object]:
    """The part of a `RunSummary` that its events tell: (type, data) of the `result`, or of all that came before."""
    last = next((data for kind, data in events if kind == "result"), None)
    if last is None:
        started: Mapping[str, Any] = next((data for kind, data in events if kind == "started"), {})
        points = [data for kind, data in events if kind == "point"]
        skipped = sum(kind == "skipped" for kind, _ in events)
        machine, doubtful = started.get("machine"), any(point["warnings"] for point in points)
    else:
        points, skipped = last["points"], len(last["skipped"])
        machine, doubtful = last["machine"], bool(last["warnings"])
    return {
        "machine": None if machine is None else machine.get("name"),
        "measured": len(points),
        "skipped": skipped,
        "headline": headline(points),
        "doubtful": doubtful,
    }

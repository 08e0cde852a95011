"""What a benchmark answers: events, points and the whole result. API, CLI, job and stored results share them.

What is asked stands in `lab.words`. No torch here.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, Field

from loralens.lab.measured import Interval, Recommendation, Row
from loralens.lab.words import BenchmarkRequest, VariantInfo

FORMAT: Final = 1
"""Format number of a stored result."""


class Remark(BaseModel):
    """Something said about a run, so that it can be said in any language: its code, its values, and English."""

    code: str
    values: dict[str, float | str] = Field(default_factory=dict)
    text: str


class Roofline(BaseModel):
    """What this device reached in this run: the denominator of every fraction."""

    flops_per_second: float
    flops_from: str
    read_bytes_per_second: float
    read_from: str
    device: str
    threads: int


class Started(BaseModel):
    """`started`: what will be measured, before anything is."""

    request: BenchmarkRequest
    points: list[dict[str, object]] = Field(description="{value, planned, reason, predicted_seconds} per point.")
    variants: list[VariantInfo]
    budget_seconds: float
    machine: dict[str, object]


class Progress(BaseModel):
    """`progress`: several times a second. `ratios`: medians so far of the point being measured."""

    fraction: float
    elapsed_seconds: float
    eta_seconds: float
    point: int
    points: int
    label: str
    ratios: dict[str, float]


class Point(BaseModel):
    """`point`: one finished point."""

    value: int | str | None = Field(description="Value on the swept axis; null without a sweep.")
    settings: dict[str, object]
    rows: list[Row]
    noise: Interval | None = Field(description="The second copy of dense ÷ dense: what is closer to 1 is not resolved.")
    recommendation: Recommendation | None
    roofline: Roofline
    clock: str = Field(description="thread CPU time, wall, CUDA events, …")
    rounds: int
    warnings: list[str]
    remarks: list[Remark] = Field(default_factory=list, description="The warnings, with their codes.")


class Skipped(BaseModel):
    """`skipped`: a point that is not measured, and why."""

    value: int | str | None
    reason: str
    remark: Remark | None = Field(None, description="The reason, with its code.")


class BenchmarkResult(BaseModel):
    """`result`: the whole run; also what is downloaded, shared and compared."""

    format: int
    request: BenchmarkRequest
    started_at: str
    elapsed_seconds: float
    machine: dict[str, object]
    points: list[Point]
    skipped: list[Skipped]
    warnings: list[str] = Field(description="Why this run may not be trusted; empty if nothing was seen.")

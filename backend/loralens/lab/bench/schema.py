"""What a benchmark answers: events, points and the whole result. API, CLI, job and stored results share them.

What is asked stands in `lab.words`. No torch here.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, Field

from loralens.lab.words import BenchmarkRequest, VariantInfo

FORMAT: Final = 1
"""Format number of a stored result."""


class Interval(BaseModel):
    """Median and quartiles of samples."""

    median: float
    q1: float
    q3: float
    samples: list[float] = Field(description="Raw: one per round in which the variant ran.")


class Remark(BaseModel):
    """Something said about a run, so that it can be said in any language: its code, its values, and English."""

    code: str
    values: dict[str, float | str] = Field(default_factory=dict)
    text: str


class Row(BaseModel):
    """What one variant did at one point. `available` false: only id, name, group and `reason` mean something."""

    id: str
    name: str
    group: str
    available: bool
    reason: str | None = Field(None, description="Why it could not run here, or why it was left out.")
    seconds: Interval | None = None
    ratio: Interval | None = Field(None, description="Time ÷ dense in the same round. Dense itself is 1.")
    rounds: list[int] = Field(default_factory=list, description="In which rounds the samples were taken.")
    flops: int | None = Field(None, description="Multiply-adds × 2 that this way needs.")
    bytes: int | None = Field(None, description="Bytes that must cross memory at least once.")
    flops_per_second: float | None = None
    bytes_per_second: float | None = None
    roofline_fraction: float | None = Field(None, description="Shortest possible time by this run's roofline ÷ time.")
    error: float | None = Field(None, description="‖y − y64‖ ÷ ‖y64‖ against float64; null if not finite.")
    error_limit: float | None = None
    error_ok: bool | None = Field(None, description="The output's error and every gradient's are within their limits.")
    gradient_limits: dict[str, float] | None = Field(None, description="Training: the limits of gradient_errors.")
    gradient_errors: dict[str, float | None] | None = Field(None, description="Training: dx, da, db (and dw).")
    operations: int | None = Field(None, description="ATen operations per call, views not counted.")
    materialised_bytes: int | None = Field(None, description="New storage that one call allocates.")
    saved_bytes: int | None = Field(None, description="Training: kept for backward beyond x and the parameters.")
    setup_seconds: float | None = Field(None, description="Once before use: packing, merging, compiling.")
    peak_bytes: int | None = Field(None, description="CUDA: most device memory that one call added.")
    notes: list[str] = Field(default_factory=list)


class Roofline(BaseModel):
    """What this device reached in this run: the denominator of every fraction."""

    flops_per_second: float
    flops_from: str
    read_bytes_per_second: float
    read_from: str
    device: str
    threads: int


class Recommendation(BaseModel):
    """What you should run here: the fastest way that computes the same and passes the error bound."""

    variant: str
    name: str
    ratio: float | None
    reason: str
    predicted: str | None = Field(None, description="What the cost model picked before measuring.")
    candidates: int | None = Field(
        None, description="How many variants kept the adapter separate and were accurate here."
    )
    ties: int | None = Field(None, description="How many of them the noise cannot tell from the fastest.")


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

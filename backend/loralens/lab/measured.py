"""What was measured of a variant, and what follows from it: matmul, bench, API and stored results share it. No torch here."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Interval(BaseModel):
    """Median and quartiles of samples."""

    median: float
    q1: float
    q3: float
    samples: list[float] = Field(description="Raw: one per round in which the variant ran.")


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

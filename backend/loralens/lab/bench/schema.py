"""The words of the benchmark: what is asked and what is answered. API, CLI, job and stored results share them.

Times are seconds, sizes bytes, counts integers. No torch here: the API checks a request before any process starts.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loralens.core.errors import InvalidInput

FORMAT: Final = 1
"""Format number of a stored result."""

Mode = Literal["forward", "training", "adapters"]
Dtype = Literal["float32", "bfloat16", "float16"]
Axis = Literal["rank", "width", "tokens", "dtype", "adapters"]
BYTES: Final[dict[str, int]] = {"float32": 4, "bfloat16": 2, "float16": 2}

SWEEPS: Final[dict[str, tuple[int | str, ...]]] = {
    "rank": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
    "width": (1024, 2048, 4096, 8192),
    "tokens": (1, 4, 16, 64, 128, 512, 2048, 8192),
    "dtype": ("float32", "bfloat16", "float16"),
    "adapters": (1, 2, 4, 6, 8, 16, 32, 64),
}
"""Values of each axis when a sweep names none. A sweep varies one axis and holds the others."""

_LIMITS: Final = {"rank": (1, 512), "width": (16, 8192), "tokens": (1, 8192), "adapters": (1, 64)}
MAX_SAMPLES_BYTES: Final = 4 * 2**30
_WIDTH = Annotated[int, Field(ge=16, le=8192)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class BenchmarkSweep(_Model):
    """One axis that is varied while the others are held."""

    axis: Axis
    values: tuple[int | str, ...] | None = Field(
        None, max_length=32, description="Ascending; default: the usual ones of the axis."
    )

    @model_validator(mode="after")
    def _values_belong_to_the_axis(self) -> BenchmarkSweep:
        values = self.points()
        if self.axis == "dtype":
            wrong: list[Any] = [value for value in values if value not in BYTES]
            allowed = ", ".join(BYTES)
        else:
            low, high = _LIMITS[self.axis]
            wrong = [value for value in values if not isinstance(value, int) or not low <= value <= high]
            allowed = f"whole numbers from {low} to {high}"
        if wrong or not values:
            raise ValueError(f"{self.axis} takes {allowed}, got {wrong[:3] if wrong else 'none'}")
        return self

    def points(self) -> tuple[int | str, ...]:
        """The values to measure, without repetitions."""
        return tuple(dict.fromkeys(self.values if self.values is not None else SWEEPS[self.axis]))


class BenchmarkRequest(_Model):
    """The body of `POST /api/benchmarks`; every field has a default."""

    mode: Mode = Field("forward", description="forward; training: forward + backward; adapters: a batch over several.")
    device: str = Field("cpu", pattern=r"^(cpu|mps|cuda(:\d{1,2})?)$", description="cpu, cuda:0 or mps.")
    dtype: Dtype = "float32"
    tokens: int = Field(16, ge=1, le=8192, description="Rows of x; with mode adapters: rows of each request.")
    in_features: _WIDTH = 4096
    out_features: _WIDTH = 4096
    rank: int = Field(8, ge=1, le=512)
    alpha: float = Field(16.0, gt=0, le=4096)
    adapters: int = Field(6, ge=1, le=64, description="Mode adapters: how many the requests share.")
    requests: int = Field(8, ge=1, le=256, description="Mode adapters: how many requests are in the batch.")
    variants: tuple[str, ...] | None = Field(
        None, max_length=40, description="Ids of GET /api/benchmarks/variants; default: all. Dense is always measured."
    )
    cache: Literal["cold", "hot"] = Field("cold", description="cold: weights come from memory; hot: from the cache.")
    threads: int = Field(1, ge=1, le=64, description="CPU threads; with more than one the wall clock is all there is.")
    seconds: float = Field(20.0, ge=0.5, le=600, description="Time budget of the whole run.")
    seed: int = Field(0, ge=0, le=2**31 - 1)
    sweep: BenchmarkSweep | None = None

    @model_validator(mode="after")
    def _the_axis_matters(self) -> BenchmarkRequest:
        if self.sweep is not None and self.sweep.axis == "adapters" and self.mode != "adapters":
            raise ValueError("a sweep over adapters needs mode adapters")
        return self

    @property
    def rows(self) -> int:
        """Rows of x in one call."""
        return self.tokens * (self.requests if self.mode == "adapters" else 1)

    @property
    def scaling(self) -> float:
        """Alpha / rank. Source: Hu et al. 2021, arXiv:2106.09685, section 4.1."""
        return self.alpha / self.rank

    def points(self) -> list[BenchmarkRequest]:
        """One request per value of the sweep; alpha keeps its ratio to the rank."""
        if self.sweep is None:
            return [self]
        found = []
        for value in self.sweep.points():
            names = ("in_features", "out_features") if self.sweep.axis == "width" else (self.sweep.axis,)
            update: dict[str, Any] = {name: value for name in names} | {"sweep": None}
            if self.sweep.axis == "rank":
                update["alpha"] = self.scaling * int(value)
            found.append(self.model_copy(update=update))
        return found


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


class VariantInfo(BaseModel):
    """One way to compute the product."""

    id: str
    name: str
    group: Literal["dense", "lora", "own", "merged", "lesson", "peft", "compiled", "packed", "batch", "training", "gpu"]
    mode: Mode
    description: str
    honest: bool = Field(description="Whether it may be recommended: it computes the same thing and keeps adapters.")


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
    candidates: int | None = Field(None, description="How many ways were honest and accurate here.")
    ties: int | None = Field(None, description="How many of them the noise cannot tell from the fastest.")


class Started(BaseModel):
    """`started`: what will be measured, before anything is."""

    request: BenchmarkRequest
    points: list[dict[str, Any]] = Field(description="{value, planned, reason, predicted_seconds} per point.")
    variants: list[VariantInfo]
    budget_seconds: float
    machine: dict[str, Any]


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
    settings: dict[str, Any]
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
    machine: dict[str, Any]
    points: list[Point]
    skipped: list[Skipped]
    warnings: list[str] = Field(description="Why this run may not be trusted; empty if nothing was seen.")


def request_from(body: dict[str, Any]) -> BenchmarkRequest:
    """A checked request.

    Raises:
        InvalidInput: with the field and what it takes.
    """
    try:
        return BenchmarkRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "sweep"
        raise InvalidInput(
            f"{field}: {first['msg']}, got {str(first['input'])[:80]}", field=field, hint="see loralens bench --help"
        ) from None

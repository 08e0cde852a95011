"""The words of a benchmark's request, and of a variant: what matmul, bench, API and CLI share.

Times are seconds, sizes bytes, counts integers. No torch here: the API checks a request before any process starts.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from loralens.core.errors import InvalidInput

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
"""Of each axis, swept or held."""


def _held(axis: str, default: int, description: str | None = None) -> Any:
    """The field of an axis that is held."""
    low, high = _LIMITS[axis]
    return Field(default, ge=low, le=high, description=description)


_NUMBERS: Final = (int, float, int | None, float | None)


class ExactNumbers(BaseModel):
    """A request whose numbers are numbers: neither `true` nor `"8"`, as its schema says."""

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        number = cls.model_fields[str(info.field_name)].annotation in _NUMBERS
        inside = value if isinstance(value, (list, tuple)) else [value if number else None]
        if any(isinstance(item, bool) or (number and isinstance(item, str)) for item in inside):
            raise ValueError("must be a number")
        return value


class _Model(ExactNumbers):
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
            wrong = [value for value in values if type(value) is not int or not low <= value <= high]
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
    tokens: int = _held("tokens", 16, "Rows of x; with mode adapters: rows of each request.")
    in_features: int = _held("width", 4096)
    out_features: int = _held("width", 4096)
    rank: int = _held("rank", 8)
    alpha: float = Field(16.0, gt=0, le=4096)
    adapters: int = _held("adapters", 6, "Mode adapters: how many the requests share.")
    requests: int = Field(8, ge=1, le=256, description="Mode adapters: how many requests are in the batch.")
    variants: tuple[str, ...] | None = Field(
        None, max_length=40, description="Ids of GET /api/benchmarks/variants; default: all. Dense is always measured."
    )
    cache: Literal["cold", "hot"] = Field(
        "cold", description="cold: weights come from main or GPU memory; hot: from the cache."
    )
    threads: int = Field(
        1, ge=1, le=64, description="CPU threads; with more than one only wall-clock time is measured."
    )
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
            update: dict[str, object] = {name: value for name in names} | {"sweep": None}
            if self.sweep.axis == "rank":
                update["alpha"] = self.scaling * int(value)
            found.append(self.model_copy(update=update))
        return found


class VariantInfo(BaseModel):
    """One variant of the product."""

    id: str
    name: str
    group: Literal["dense", "lora", "own", "merged", "lesson", "peft", "compiled", "packed", "batch", "training", "gpu"]
    mode: Mode
    description: str
    honest: bool = Field(description="Whether it may be recommended: it computes the same thing and keeps adapters.")


def request_from(body: dict[str, object]) -> BenchmarkRequest:
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

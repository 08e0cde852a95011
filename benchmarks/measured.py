"""Reading figures off a measured point: paired ratios between any two of its variants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loralens.lab.bench import point
from loralens.lab.device import Device
from loralens.lab.matmul.roofline import MeasuredRates
from loralens.lab.timing import quantile
from loralens.lab.words import BenchmarkRequest


@dataclass(frozen=True, slots=True)
class PointResult:
    """A finished point; rows by id."""

    data: dict[str, Any]
    rows: dict[str, dict[str, Any]]

    def ran(self, name: str) -> bool:
        """Whether a variant was timed."""
        return bool(self.rows.get(name, {}).get("seconds"))

    def ratio(self, name: str, to: str = "dense") -> tuple[float, float, float]:
        """Median and quartiles of one variant's time ÷ another's, in the rounds in which both ran."""
        top, bottom = (self._by_round(which) for which in (name, to))
        ratios = [top[at] / bottom[at] for at in top if at in bottom]
        return quantile(ratios, 0.5), quantile(ratios, 0.25), quantile(ratios, 0.75)

    def added_seconds(self, name: str) -> float:
        """Median over rounds of a variant's time − dense's."""
        top, bottom = self._by_round(name), self._by_round("dense")
        return quantile([top[at] - bottom[at] for at in top if at in bottom], 0.5)

    def best(self, *names: str) -> str | None:
        """The variant with the smallest median ratio, of those that ran."""
        ran = [name for name in names if self.ran(name)]
        return min(ran, key=lambda name: self.ratio(name)[0]) if ran else None

    def noise(self) -> tuple[float, float, float]:
        """The second copy of dense ÷ dense."""
        return self.ratio("dense_again")

    def _by_round(self, name: str) -> dict[int, float]:
        row = self.rows[name]
        return dict(zip(row["rounds"], row["seconds"]["samples"], strict=True))


def measured(device: Device, roofline: MeasuredRates, seconds: float, **settings: Any) -> PointResult:
    """Measure one point; see `BenchmarkRequest` for the settings."""
    request = BenchmarkRequest(device=device.name, **settings)
    for kind, data in point.measure(request, device, roofline, seconds):
        if kind == "point":
            device.empty_cache()
            return PointResult(data, {row["id"]: row for row in data["rows"]})
    raise AssertionError("a measurement ends with its point")

"""What fits into the time: decided and announced before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass

from loralens.lab.bench.schema import Remark
from loralens.lab.device import Device
from loralens.lab.matmul.catalogue import of_mode
from loralens.lab.matmul.problem import LeastWork, copies_for, leaves_cache
from loralens.lab.matmul.roofline import MeasuredRates
from loralens.lab.timing import MIN_ROUNDS, WARM_UP_CALLS
from loralens.lab.words import BYTES, BenchmarkRequest

CALLS = MIN_ROUNDS + WARM_UP_CALLS + 2
"""Calls of each variant at the very least: rounds, warming up, and one each for its error and its counts."""
EFFICIENCY = 0.5
"""Assumption: a stock call reaches this fraction of the roofline; it only decides what is planned."""
WEIGHT_COST = {"forward": 1.3, "training": 2.6, "adapters": 1.2}
"""Assumption: mean time of the variants of a mode in dense forward calls."""
SINGLE_POINT_SECONDS = 10.0
SINGLE_POINT_OVERRUN = 3.0
"""A single point may take this many times the budget, or these seconds, before it is refused: it was asked for."""
FLOAT64_FLOPS_PER_SECOND = 2e10
PREPARE_BYTES_PER_SECOND = 1.5e9
"""Assumptions: rate of float64 products on one thread, and of generating and rearranging weights."""


@dataclass(slots=True)
class Planned:
    """A point with the seconds it needs at least, the seconds it gets, and why it is left out if it is."""

    request: BenchmarkRequest
    value: int | str | None
    predicted_seconds: float
    seconds: float = 0.0
    left_out: Remark | None = None

    @property
    def reason(self) -> str | None:
        """Why it is left out, in words."""
        return None if self.left_out is None else self.left_out.text


def plan(request: BenchmarkRequest, device: Device, roofline: MeasuredRates) -> list[Planned]:
    """Give every point its share of the budget; leave out, dearest first, what cannot be fitted in."""
    values = [None] if request.sweep is None else list(request.sweep.points())
    pairs = zip(request.points(), values, strict=True)
    points = [Planned(point, value, _least(point, device, roofline)) for point, value in pairs]
    for point in points:
        needed, free = _memory(point.request, device), device.free_bytes()
        if needed > 0.8 * free:
            point.left_out = Remark(
                code="memory", values={"needed_bytes": needed, "free_bytes": free},
                text=f"needs about {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB is free",
            )  # fmt: skip
    left = request.seconds
    if len(points) == 1:
        left = max(SINGLE_POINT_SECONDS, SINGLE_POINT_OVERRUN * request.seconds)
    for point in sorted(points, key=lambda point: point.predicted_seconds):
        if point.reason is None and point.predicted_seconds > left:
            point.left_out = Remark(
                code="time",
                values={
                    "needed_seconds": point.predicted_seconds, "left_seconds": max(0.0, left), "rounds": MIN_ROUNDS,
                    "budget_seconds": request.seconds,
                },
                text=f"needs about {point.predicted_seconds:.0f} s for {MIN_ROUNDS} rounds, {max(0, left):.0f} s of "
                f"the {request.seconds:.0f} s is left",
            )  # fmt: skip
        elif point.reason is None:
            left -= point.predicted_seconds
    kept = [point for point in points if point.reason is None]
    spare = max(0.0, request.seconds - sum(point.predicted_seconds for point in kept)) / max(1, len(kept))
    for point in kept:
        point.seconds = point.predicted_seconds * MIN_ROUNDS / CALLS + spare
    return points


def _least(request: BenchmarkRequest, device: Device, roofline: MeasuredRates) -> float:
    rows, size = request.rows, BYTES[request.dtype]
    weights = request.in_features * request.out_features
    work = LeastWork(2 * rows * weights, (weights + rows * (request.in_features + request.out_features)) * size)
    call = roofline.floor_seconds(work) / EFFICIENCY
    count = len(of_mode(request.mode)) if request.variants is None else len(request.variants) + 3
    checked = 2 * min(rows, 128) * weights / FLOAT64_FLOPS_PER_SECOND * (2 if request.mode == "training" else 1)
    copies = copies_for(weights * size, device.cache_bytes(), request.cache)
    derived = 6 if request.variants is None and request.mode != "training" else 2
    flush = 0.0
    if request.cache == "cold" and not leaves_cache(weights * size, device.cache_bytes(), request.cache):
        flush = MIN_ROUNDS * count * device.flush_bytes() / roofline.read_bytes_per_second
    prepare = 0.0 if device.kind == "cuda" else derived * copies * weights * size / PREPARE_BYTES_PER_SECOND
    return CALLS * count * WEIGHT_COST[request.mode] * call + checked + prepare + flush


def _memory(request: BenchmarkRequest, device: Device) -> int:
    """W's copies, x, y and its temporaries, the adapters, and the float64 reference (all of x and g when training)."""
    size, weights = BYTES[request.dtype], request.in_features * request.out_features
    copies = copies_for(weights * size, device.cache_bytes(), request.cache)
    rows = request.rows * (request.in_features + request.out_features)
    double = 8 * (weights + (rows if request.mode == "training" else 0)) if device.kind == "cpu" else 0
    adapters = request.adapters if request.mode == "adapters" else 1
    factors = 3 * adapters * request.rank * (request.in_features + request.out_features) * size
    return weights * size * copies + 6 * rows * size + factors + double

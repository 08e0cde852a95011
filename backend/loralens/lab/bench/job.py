"""The benchmark as a job: plan, roofline, points one by one, result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import torch

from loralens.core.errors import DeviceUnavailable
from loralens.lab.bench import plan, point
from loralens.lab.bench.schema import FORMAT, Remark, Skipped
from loralens.lab.device import Device, is_out_of_memory
from loralens.lab.matmul import roofline
from loralens.lab.matmul.catalogue import of_mode
from loralens.lab.words import BenchmarkRequest, request_from

PROGRESS_SECONDS = 0.2


def run(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run a benchmark; yields the events described in `api/routes/benchmarks.py`.

    Raises:
        InvalidInput: the request is not valid.
        DeviceUnavailable: the device is not in this machine.
    """
    request = request_from(spec)
    threads = torch.get_num_threads()
    try:
        yield from _run(request)
    finally:
        torch.set_num_threads(threads)  # the process goes on to other jobs


def _run(request: BenchmarkRequest) -> Iterator[dict[str, Any]]:
    clock = _Clock(request.seconds)
    yield clock.progress(0.0, 0, 1, "measuring what this device can do")
    device = Device(request.device, request.threads)
    machine = device.describe()
    limits = {request.dtype: roofline.measure(device, request.dtype)}
    planned = plan.plan(request, device, limits[request.dtype])
    yield {
        "type": "started",
        "request": request.model_dump(mode="json"),
        "points": [
            {
                "value": item.value,
                "planned": item.reason is None,
                "reason": item.reason,
                "predicted_seconds": item.predicted_seconds,
            }
            for item in planned
        ],
        "variants": [info.model_dump(mode="json") for info in of_mode(request.mode)],
        "budget_seconds": request.seconds,
        "machine": machine,
    }
    yield {"type": "roofline", **limits[request.dtype].to_dict()}
    points: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    for number, item in enumerate(planned):
        if item.left_out is not None:
            skipped.append(_skipped(item, item.left_out))
            yield {"type": "skipped", **skipped[-1]}
            continue
        dtype = item.request.dtype
        if dtype not in limits:
            limits[dtype] = roofline.measure(device, dtype)
        try:
            for kind, data in point.measure(item.request, device, limits[dtype], clock.share(item, planned[number:])):
                if kind == "progress":
                    done = (number + data["share"]) / len(planned)
                    event = clock.progress(done, number, len(planned), data["label"], data["ratios"])
                    if clock.due(data["share"] == 0.0):
                        yield event
                else:
                    points.append({"value": item.value, **data})
                    yield {"type": "point", **points[-1]}
        except DeviceUnavailable as error:
            if len(planned) == 1:
                raise
            why = Remark(code="no_float16" if dtype == "float16" else "unavailable", text=error.message)
            skipped.append(_skipped(item, why))
            yield {"type": "skipped", **skipped[-1]}
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(planned) == 1:
                raise
            skipped.append(_skipped(item, _OUT_OF_MEMORY))
            yield {"type": "skipped", **skipped[-1]}
        device.empty_cache()
    yield {
        "type": "result",
        "format": FORMAT,
        "request": request.model_dump(mode="json"),
        "started_at": clock.started_at,
        "elapsed_seconds": clock.elapsed(),
        "machine": machine,
        "points": points,
        "skipped": skipped,
        "warnings": list(dict.fromkeys(text for item in points for text in item["warnings"])),
    }


_OUT_OF_MEMORY = Remark(code="out_of_memory", text="the device ran out of memory at this point")


def _skipped(item: plan.Planned, why: Remark) -> dict[str, Any]:
    return Skipped(value=item.value, reason=why.text, remark=why).model_dump(mode="json")


class _Clock:
    """Time that has passed, and how it is told."""

    def __init__(self, budget_seconds: float) -> None:
        self._budget = budget_seconds
        self._begin = time.monotonic()
        self._told = 0.0
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")

    def elapsed(self) -> float:
        return time.monotonic() - self._begin

    def due(self, now: bool) -> bool:
        """Whether the next progress event should be sent."""
        if now or time.monotonic() - self._told >= PROGRESS_SECONDS:
            self._told = time.monotonic()
            return True
        return False

    def share(self, item: plan.Planned, rest: list[plan.Planned]) -> float:
        """Seconds of measuring for a point: what was planned, less what earlier points overran."""
        wanted = sum(other.seconds for other in rest if other.reason is None)
        left = max(0.0, self._budget - self.elapsed())
        # Preparing takes as long as it takes; without time to measure it would have been for nothing.
        return item.seconds * max(0.5, min(1.0, left / wanted)) if wanted else item.seconds

    def progress(
        self, fraction: float, number: int, count: int, label: str, ratios: dict[str, float] | None = None
    ) -> dict[str, Any]:
        elapsed = self.elapsed()
        left = self._budget - elapsed
        if fraction >= 0.9 or (left <= 0 and fraction > 0):  # the budget says nothing any more: go by the pace so far
            left = elapsed * (1 - min(fraction, 1.0)) / fraction
        left = max(left, 0.0)
        return {
            "type": "progress",
            "fraction": min(1.0, fraction),
            "elapsed_seconds": elapsed,
            "eta_seconds": left,
            "point": number,
            "points": count,
            "label": label,
            "ratios": ratios or {},
        }

"""One point: prepare every variant, check it against float64, count what it does, race them, and judge."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from loralens.core.errors import DeviceUnavailable, LoraLensError
from loralens.lab.bench import trust
from loralens.lab.device import Device
from loralens.lab.matmul import cost
from loralens.lab.matmul.catalogue import EAGER, NOISE, REFERENCE, of_mode
from loralens.lab.matmul.counts import count, saved_bytes
from loralens.lab.matmul.problem import ProductTensors, relative_error
from loralens.lab.matmul.roofline import MeasuredRates
from loralens.lab.matmul.variants.base import Variant
from loralens.lab.matmul.variants.registry import REGISTRY
from loralens.lab.measured import Row
from loralens.lab.timing import Timings, interval, race
from loralens.lab.words import BenchmarkRequest, VariantInfo

ERROR_FACTOR = {"float32": 2.0, "bfloat16": 1.05, "float16": 1.05}
"""How much larger than the error of PEFT's form a variant's error may be."""
FLOAT32_LIMIT = 1e-6
PREPARED_SHARE = 0.5
"""Assumption: copies that variants derive from W may take this share of the free memory."""


def measure(
    request: BenchmarkRequest, device: Device, roofline: MeasuredRates, seconds: float
) -> Iterator[tuple[str, Any]]:
    """Yields ("progress", {label, share, ratios}) while it works and ("point", data) at the end.

    Raises:
        DeviceUnavailable: the dense layer itself cannot run here, so that there is nothing to compare with.
    """
    yield "progress", {"label": "making the tensors", "share": 0.0, "ratios": {}}
    with torch.inference_mode(request.mode != "training"):
        problem = ProductTensors(request, device)
        rows, runs = {}, {}
        for info in _wanted(request):
            yield "progress", {"label": f"preparing {info.name}", "share": 0.0, "ratios": {}}
            rows[info.id], run = _prepare(info, problem)
            if run is not None:
                runs[info.id] = run
        if REFERENCE not in runs:
            raise _no_reference(request, rows[REFERENCE].reason)
        yield "progress", {"label": "checking against float64", "share": 0.05, "ratios": {}}
        _check(problem, runs, rows)
        timings = Timings(REFERENCE)
        flush = None if problem.leaves_cache or request.cache == "hot" else device.flusher()
        begin = time.perf_counter()
        for timings in race(
            device, runs, reference=REFERENCE, seconds=seconds, copies=problem.copies, flush=flush,
            seed=request.seed, always=frozenset({REFERENCE, NOISE}),
        ):  # fmt: skip
            share = min(1.0, (time.perf_counter() - begin) / max(seconds, 1e-9))
            medians = {name: _median(timings.ratios(name)) for name in runs if timings.of(name)}
            yield "progress", {"label": "measuring", "share": share, "ratios": medians}
        for run in runs.values():
            run.finish()
    yield "point", _point(problem, runs, rows, timings, roofline)


def _no_reference(request: BenchmarkRequest, reason: str | None) -> DeviceUnavailable:
    return DeviceUnavailable(
        f"{request.dtype} is not measured on {request.device}: {reason}",
        field="dtype",
        hint="choose float32 or bfloat16",
    )


def _wanted(request: BenchmarkRequest) -> list[VariantInfo]:
    known = of_mode(request.mode)
    if request.variants is None:
        return known
    needed = {*request.variants, REFERENCE, NOISE, EAGER[request.mode]}
    return [info for info in known if info.id in needed]


def _prepare(info: VariantInfo, problem: ProductTensors) -> tuple[Row, Variant | None]:
    row = Row(id=info.id, name=info.name, group=info.group, available=False)
    kind = REGISTRY[info.mode, info.id]
    row.reason = kind.why_not(problem) or _no_room(kind, problem) or _takes_too_long(kind, problem.request)
    if row.reason is not None:
        return row, None
    begin = time.perf_counter()
    try:
        run = kind(problem)
        run.prepare()
        if kind.warm:
            run(0)
    except LoraLensError as error:
        row.reason = error.message
        return row, None
    except (RuntimeError, NotImplementedError, ImportError) as error:
        if info.id in (REFERENCE, NOISE) or "memory" in str(error):
            raise
        row.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return row, None
    problem.device.synchronize()
    row.available, row.notes = True, run.notes
    row.setup_seconds = time.perf_counter() - begin + run.shared_seconds
    return row, run


def _takes_too_long(kind: type[Variant], request: BenchmarkRequest) -> str | None:
    least = 3 * kind.setup_seconds
    if request.variants is not None or request.seconds >= least or (kind.setup_seconds < 10 and "peft" in sys.modules):
        return None
    return (
        f"left out: preparing it takes about {kind.setup_seconds:.0f} s; ask for it by name, "
        f"or give the run {least:.0f} s"
    )


def _no_room(kind: type[Variant], problem: ProductTensors) -> str | None:
    weights = problem.copies * problem.in_features * problem.out_features * problem.element_bytes
    needed, free = int(kind.copies_of_weight * weights), problem.device.free_bytes()
    if needed > free * PREPARED_SHARE:
        return f"its copies of W need {needed} bytes, and {free} are free"
    return None


def _check(problem: ProductTensors, runs: Mapping[str, Variant], rows: Mapping[str, Row]) -> None:
    """Errors against float64, and what one call does."""
    expected = problem.expected()
    exact = problem.expected_gradients() if problem.request.mode == "training" else {}
    for name, run in list(runs.items()):
        row = rows[name]
        output = run(0)
        row.operations, row.materialised_bytes = _counts(run)
        if _computes_lora(run):
            row.error = relative_error(output[problem.checked.to(output.device)], expected)
        if exact:
            row.saved_bytes = _saved(problem, run)
            found = run.gradients()
            row.gradient_errors = {
                key: relative_error(_rows_of(key, value, problem), exact[key])
                for key, value in found.items()
                if key in exact and _computes_lora(run)
            }
        if problem.device.kind == "cuda":
            row.peak_bytes = _peak(run)
    eager = rows.get(EAGER[problem.request.mode])
    for name in runs:
        _judge(rows[name], eager, problem.request.dtype)


def _judge(row: Row, eager: Row | None, dtype: str) -> None:
    """Bound the error of the output, and in training that of each gradient, by those of PEFT's form."""
    if "error" not in row.model_fields_set or eager is None or eager.error is None:
        return
    row.error_limit = _limit(eager.error, dtype)
    row.error_ok = _within(row.error, row.error_limit)
    if row.gradient_errors:
        of_eager = eager.gradient_errors or {}
        known = {name: error for name in row.gradient_errors if (error := of_eager.get(name)) is not None}
        row.gradient_limits = {name: _limit(error, dtype) for name, error in known.items()}
        within = [_within(row.gradient_errors[name], limit) for name, limit in row.gradient_limits.items()]
        row.error_ok = row.error_ok and all(within)


def _limit(eager: float, dtype: str) -> float:
    limit = eager * ERROR_FACTOR[dtype]
    return min(limit, FLOAT32_LIMIT) if dtype == "float32" and eager <= FLOAT32_LIMIT else limit


def _within(error: float | None, limit: float) -> bool:
    return error is not None and error <= limit


def _computes_lora(run: Variant) -> bool:
    """Dense variants compute something else on purpose."""
    return not run.id.startswith(("dense", "packed_dense", "packed_touch", "graph_dense", "full_gradient"))


def _counts(run: Variant) -> tuple[int | None, int | None]:
    if run.id in ("compiled", "graph_dense", "graph_addmm", "triton_split"):
        return None, None  # what runs is not what Python dispatches
    counts = count(lambda: run.forward(0) if hasattr(run, "forward") else run(0))
    return counts.operations, counts.materialised_bytes


def _saved(problem: ProductTensors, run: Variant) -> int | None:
    if run.id == "compiled" or not hasattr(run, "forward"):
        return None
    return saved_bytes(lambda: run.forward(0), [problem.x, *problem.weights, *run.parameters()])  # type: ignore[attr-defined]


def _rows_of(key: str, value: Tensor, problem: ProductTensors) -> Tensor:
    return value[problem.checked.to(value.device)] if key == "dx" else value


def _peak(run: Callable[[int], object]) -> int:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(0)
    torch.cuda.synchronize()
    return max(0, torch.cuda.max_memory_allocated() - before)


def _median(values: list[float]) -> float:
    return interval(values).median if values else 0.0


def _point(
    problem: ProductTensors,
    runs: Mapping[str, Variant],
    rows: Mapping[str, Row],
    timings: Timings,
    roofline: MeasuredRates,
) -> dict[str, object]:
    for name, run in runs.items():
        samples = timings.of(name)
        if samples:
            roofline.saw(run.work(), interval(samples).median, run.id)
    for name, run in runs.items():
        samples = timings.of(name)
        if not samples:
            continue
        row, work = rows[name], run.work()
        row.seconds = interval(samples)
        row.ratio = interval(timings.ratios(name))
        row.rounds = list(timings.seconds[name])
        middle = row.seconds.median
        row.flops, row.bytes = work.flops, work.bytes
        row.flops_per_second, row.bytes_per_second = work.flops / middle, work.bytes / middle
        row.roofline_fraction = roofline.floor_seconds(work) / middle
    request = problem.request
    settings = request.model_dump(
        mode="json", include={"tokens", "in_features", "out_features", "rank", "alpha", "dtype", "adapters", "requests"}
    )
    remarks = trust.remarks(problem.device, timings, NOISE)
    noise, best = rows.get(NOISE), cost.recommend(problem, rows, roofline)
    return {
        "settings": settings | {"rows": problem.rows, "copies": problem.copies},
        "rows": [row.model_dump(mode="json", exclude_unset=True) for row in rows.values()],
        "noise": noise.ratio.model_dump(mode="json") if noise and noise.ratio else None,
        "recommendation": best and best.model_dump(mode="json"),
        "roofline": roofline.to_dict(),
        "clock": problem.device.clock,
        "rounds": timings.rounds,
        "warnings": [remark.text for remark in remarks],
        "remarks": [remark.model_dump(mode="json") for remark in remarks],
    }

"""`loralens bench`: time LoRA's product on this machine."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from loralens.cli.render import line, print_json, table
from loralens.core.errors import InvalidInput
from loralens.core.time.measured_links import KINDS
from loralens.installation.state import require
from loralens.settings import Settings

MAX_RESULT_BYTES = 64 * 2**20
Option = typer.Option
EXAMPLES = (
    ("loralens bench", "one size, on the processor, in 20 seconds"),
    (
        "loralens bench --device cuda:0 --dtype bfloat16 --tokens 4096 --mode training",
        "on a GPU, with the backward pass",
    ),
    ("loralens bench --sweep rank=8,64,256 --output ranks.json", "over ranks, saved to a file"),
    ("loralens bench --calibrate", "this device's own rates from small training steps, for the time of a step"),
)


def command(
    mode: Annotated[
        str, Option(help="forward, training (with the backward pass) or adapters (a mixed batch).")
    ] = "forward",
    device: Annotated[str, Option(help="cpu, cuda:0 or mps.")] = "cpu",
    dtype: Annotated[str, Option(help="float32, bfloat16 or float16.")] = "float32",
    tokens: Annotated[int, Option(help="Rows of x; with mode adapters, rows of each request.")] = 16,
    width: Annotated[int | None, Option(help="Sets in_features and out_features.")] = None,
    in_features: Annotated[int, Option(help="Columns of W.")] = 4096,
    out_features: Annotated[int, Option(help="Rows of W.")] = 4096,
    rank: Annotated[int, Option(help="Rank of the adapter.")] = 8,
    alpha: Annotated[float, Option(help="Numerator of the scaling alpha / rank.")] = 16.0,
    adapters: Annotated[int, Option(help="Number of adapters (mode adapters).")] = 6,
    requests: Annotated[int, Option(help="Requests in the batch (mode adapters).")] = 8,
    variants: Annotated[str, Option(help="Only these, with commas; dense is always measured.")] = "",
    cache: Annotated[str, Option(help="cold: weights come from main or GPU memory; hot: from the cache.")] = "cold",
    threads: Annotated[int, Option(help="CPU threads; more than one needs a quiet machine.")] = 1,
    seconds: Annotated[float, Option(help="Time budget.")] = 20.0,
    seed: Annotated[int, Option(help="Random seed for the data and the order of measurement.")] = 0,
    sweep: Annotated[str, Option(help="Vary one axis: rank, width, tokens, dtype or adapters; rank=1,8,64.")] = "",
    output: Annotated[Path | None, Option("--output", "-o", help="Also write the result to this file.")] = None,
    compare: Annotated[tuple[Path, Path] | None, Option(help="Compare two result files: a.json b.json.")] = None,
    keep: Annotated[bool, Option(help="Save the run in the history that the page shows.")] = True,
    calibrate: Annotated[
        bool, Option("--calibrate", help="Time small training steps and save this device's rates.")
    ] = False,
    members: Annotated[
        int | None, Option(help="With --calibrate: GPUs or processes to time transfers among; all GPUs where not said.")
    ] = None,
    json: Annotated[bool, Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Time the variants of LoRA's product on this machine, against the dense layer in the same rounds."""
    if compare is not None:
        return _compare(*compare, json)
    if calibrate:
        return _calibrate(device, threads, members, output, json)
    if members is not None:
        raise InvalidInput("members are those of --calibrate", field="members", hint="loralens bench --calibrate")
    from loralens.lab.words import request_from

    body: dict[str, Any] = {
        "mode": mode, "device": device, "dtype": dtype, "tokens": tokens, "rank": rank, "alpha": alpha,
        "in_features": width or in_features, "out_features": width or out_features, "adapters": adapters,
        "requests": requests, "cache": cache, "threads": threads, "seconds": seconds, "seed": seed,
        "variants": [name.strip() for name in variants.split(",") if name.strip()] or None, "sweep": _sweep(sweep),
    }  # fmt: skip
    request = request_from(body)
    result: dict[str, Any] = {}
    events = _lab_module("loralens.lab.bench.job").run
    told = []
    for event in _followed(events(request.model_dump(mode="json")), quiet=json):
        if event["type"] not in ("progress",):
            told.append(event)
        if event["type"] == "result":
            result = {name: value for name, value in event.items() if name != "type"}
    if output is not None:
        try:
            output.write_text(json_module.dumps(result), encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"cannot write {output}: {error.strerror}", field="output") from None
    if keep:
        _keep(request.model_dump(mode="json"), request.device, told)
    if json:
        print_json(result)


def _calibrate(device: str, threads: int, members: int | None, output: Path | None, json: bool) -> None:
    """Some two minutes of small real steps, and transfers among several GPUs; kept, and shown beside what is measured later."""
    from loralens.calibrations import keep_calibration
    from loralens.core.time.calibration import Calibration
    from loralens.extras import needing

    with needing("trace", "calibrating"):
        events = _lab_module("loralens.lab.measure.calibrate").calibrate(device, threads, members=members)
        found: dict[str, Any] = {}
        for event in events:
            if event["type"] == "case" and not json:
                line(f"{event['number']:2} of {event['of']}: {event['method']:5} {event['seconds']:.3f} s")
            if event["type"] == "message" and not json:
                line(f"{event['kind'].replace('_', '-')} of {event['bytes']:,} bytes: {1e3 * event['seconds']:.3f} ms")
            found = event.get("calibration", found)
    kept = keep_calibration(Settings().state_directory(), Calibration.read(found))
    if output is not None:
        output.write_text(json_module.dumps(found, indent=1) + "\n", encoding="utf-8")
    if json:
        return print_json(found)
    line(
        f"products {found['flops_per_second'] / 1e9:,.1f} GFLOP/s, attention {found['attention_flops_per_second'] / 1e9:,.1f} GFLOP/s"
    )
    line(
        f"memory {found['bytes_per_second'] / 1e9:,.2f} GB/s, unpacking {found['weights_per_second'] / 1e9:,.2f} billion weights/s"
    )
    line(
        f"{1e6 * found['kernel_seconds']:.1f} µs a kernel; {found['dtype']}, {found['threads']} thread(s) on {found['device']}"
    )
    _links(found["links"])
    line(
        f"A step left out of the fit is off by {found['median_error']:.1%} in the median of {found['steps']}. Kept in {kept}."
    )
    return None


def _links(links: Mapping[str, Any] | None) -> None:
    if links is None:
        return
    for kind in KINDS:
        rate = links[kind]
        line(
            f"{kind.replace('_', '-')} among {links['members']}: {rate['bytes_per_second'] / 1e9:,.2f} GB/s on the wire, "
            f"{1e6 * rate['latency_seconds']:,.0f} µs before it ({links['backend']})"
        )


def _sweep(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    axis, _, values = text.partition("=")
    parts = [part.strip() for part in values.split(",") if part.strip()]
    return {"axis": axis.strip(), "values": [int(part) if part.isdecimal() else part for part in parts] or None}


def _lab_module(name: str) -> Any:
    require(Settings().state_directory())
    return import_module(name)


def _followed(events: Iterator[dict[str, Any]], *, quiet: bool) -> Iterator[dict[str, Any]]:
    """Show progress on stderr, points as they land on stdout."""
    shows = sys.stderr.isatty() and not quiet
    for event in events:
        if event["type"] == "progress" and shows:
            print(f"\r\x1b[K{event['fraction']:4.0%}  {event['label']}, {event['eta_seconds']:.0f} s left", end="",
                  file=sys.stderr, flush=True)  # fmt: skip
        elif not quiet and event["type"] in ("started", "point", "skipped", "roofline"):
            if shows:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            _show(event)
        yield event


def _show(event: Mapping[str, Any]) -> None:
    if event["type"] == "started":
        machine, points = event["machine"], event["points"]
        line(f"{machine['name']}, {machine['clock']}, load average {machine['load_average']}")
        planned = sum(point["planned"] for point in points)
        line(f"{planned} of {len(points)} points fit into {event['budget_seconds']:.0f} s")
    elif event["type"] == "roofline":
        line(
            f"measured here: {event['flops_per_second'] / 1e9:.0f} GFLOP/s ({event['flops_from']}), "
            f"{event['read_bytes_per_second'] / 1e9:.1f} GB/s ({event['read_from']})"
        )
    elif event["type"] == "skipped":
        line(f"skipped: {event['value'] if event['value'] is not None else 'the point'}: {event['reason']}")
    else:
        _show_point(event)


def _show_point(point: Mapping[str, Any]) -> None:
    settings = point["settings"]
    title = (
        f"{settings['dtype']}, {settings['rows']} rows, {settings['in_features']} to {settings['out_features']}, "
        f"rank {settings['rank']}, {point['rounds']} rounds"
    )
    rows = []
    for row in point["rows"]:
        if not row["available"] or not row.get("seconds"):
            rows.append([row["name"], "–", row["reason"] or "did not run", "", "", ""])
            continue
        ratio, error = row["ratio"], row.get("error")
        accuracy = "" if error is None else f"{error:.1e}" + ("" if row.get("error_ok") is not False else " too large")
        rows.append([
            row["name"], _time(row["seconds"]["median"]),
            f"{ratio['median']:.3f} [{ratio['q1']:.3f}–{ratio['q3']:.3f}]", f"{row['roofline_fraction']:.2f}", accuracy,
            "" if row.get("operations") is None else str(row["operations"]),
        ])  # fmt: skip
    table(["", "median", "÷ dense [quartiles]", "roofline", "error", "ops"], rows, title)
    best = point["recommendation"]
    if best is not None:
        line(f"Recommended variant for this machine: {best['name']} ({best['reason']}).")
    for warning in point["warnings"]:
        line(f"warning: {warning}")


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds >= 1e-4 else f"{seconds * 1e6:.2f} µs"


def _keep(spec: Mapping[str, Any], device: str, events: list[dict[str, Any]]) -> None:
    """Put the run into the store of the server, so that the page's history has it."""
    from loralens.jobs.database import StorageFull
    from loralens.jobs.manager import JobManager

    try:
        job = JobManager.record(Settings().state_directory(), "benchmark", spec, device, events)
    except StorageFull as error:
        print(f"not saved: {error.message}", file=sys.stderr)
        return
    print(f"saved as {job}", file=sys.stderr)


def _compare(first: Path, second: Path, json: bool) -> None:
    from loralens.lab.bench.compare import compare

    comparison = compare(_read(first), _read(second))
    if json:
        return print_json(comparison.model_dump(mode="json"))
    for point in comparison.points:
        rows = [
            [row.name, _ratio(row.ratio_a), _ratio(row.ratio_b), _ratio(row.change), row.verdict] for row in point.rows
        ]
        value = "" if point.value is None else f"{point.value}, "
        table(["", str(first), str(second), "b ÷ a", "b is"], rows, f"{value}noise ±{point.noise:.1%}")
    for text in comparison.differences:
        line(f"differs: {text}")


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _read(path: Path) -> Any:
    from pydantic import ValidationError

    from loralens.lab.bench.schema import BenchmarkResult

    try:
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise InvalidInput(f"{path} is larger than {MAX_RESULT_BYTES} bytes", field="compare")
        return BenchmarkResult.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}", field="compare") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"{path} is not a benchmark result: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            field="compare",
            hint="loralens bench -o a.json writes one",
        ) from None

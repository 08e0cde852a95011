"""Trace the generated cases in parallel processes and keep them as JSON lines: `python -m loralens.lab.trace.grid FILE`.

Each line holds a request and what the trace says; the lines of a finished file are sorted by name. A file that
exists is continued: cases in it whose request is unchanged are not traced again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from loralens.core.errors import LoraLensError
from loralens.core.jsontext import JsonObject
from loralens.lab.trace import grid_cases, grid_hub, grid_media, grid_models, grid_more, grid_run, grid_sound, grid_text

GRIDS: Final = {
    "first": grid_cases.cases,
    "more": grid_more.cases,
    "models": grid_models.cases,
    "text": grid_text.cases,
    "run": grid_run.cases,
    "media": grid_media.cases,
    "sound": grid_sound.cases,
    "hub": grid_hub.cases,
}
KEPT: Final = ("trainable", "total", "phase", "peak_allocated_bytes", "phase_peaks", "categories")


def trace_one(name: str, request: JsonObject) -> JsonObject:
    """One line of the file; a case that the real libraries refuse says so."""
    from loralens.lab.trace.case import trace

    line: JsonObject = {"name": name, "request": request}
    try:
        result = trace(request["config"], request["method"], request["recipe"]).to_dict()
    except LoraLensError as problem:
        return {**line, "refused": problem.message}
    return {**line, "expected": {key: result[key] for key in KEPT}}


def read(path: Path) -> Iterator[JsonObject]:
    """The lines of a file, if it exists."""
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(text)


def as_line(entry: JsonObject) -> str:
    """Compact JSON."""
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=True)


def run(path: Path, workers: int, pattern: str = "", grid: str = "first") -> tuple[int, int]:
    """Trace what is missing; returns how many cases the file holds and how many were traced now."""
    wanted = {name: request for name, request in GRIDS[grid]() if pattern in name}
    there = {entry["name"]: entry for entry in read(path)}
    kept = {
        name: entry
        for name, entry in there.items()
        if "expected" in entry and wanted.get(name, entry["request"]) == entry["request"]
    }
    missing = [(name, request) for name, request in wanted.items() if name not in kept]
    with path.open("a", encoding="utf-8") as file, _pool(workers) as pool:
        futures = [pool.submit(trace_one, name, request) for name, request in missing]
        for number, future in enumerate(as_completed(futures), 1):
            entry = future.result()
            kept[entry["name"]] = entry
            file.write(as_line(entry) + "\n")
            file.flush()
            print(f"{number}/{len(missing)} {entry['name']} {entry.get('refused', '')}", file=sys.stderr, flush=True)
    if not pattern:
        kept = {name: entry for name, entry in kept.items() if name in wanted}
    lines = [as_line(kept[name]) for name in sorted(kept)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(kept), len(missing)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m loralens.lab.trace.grid", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="part of the case names to trace")
    parser.add_argument("--grid", choices=list(GRIDS), default="first", help="the first families, or those added later")
    given = parser.parse_args(arguments)
    started = time.perf_counter()
    held, traced = run(given.file, given.workers, given.only, given.grid)
    print(f"{held} cases in the file, {traced} traced in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

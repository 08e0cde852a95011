"""Trace the generated ranks one after another and keep them as JSON lines: `python -m loralens.lab.trace.ranks.grid FILE`.

A file that exists is continued: cases in it whose request is unchanged are not traced again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loralens.core.errors import LoraLensError
from loralens.core.jsontext import JsonObject
from loralens.lab.trace.grid import as_line, read
from loralens.lab.trace.ranks.cases import cases


def trace_one(name: str, request: JsonObject) -> JsonObject:
    """One line of the file; a case that the real libraries refuse says so."""
    from loralens.lab.trace.ranks.rank import trace_rank

    line: JsonObject = {"name": name, "request": request}
    try:
        found, sent = trace_rank(request["config"], request["method"], request["recipe"])
    except LoraLensError as problem:
        return {**line, "refused": problem.message}
    expected = {
        name: getattr(found, name) for name in ("peak_allocated_bytes", "phase", "phase_peaks", "trainable", "total")
    }
    return {**line, "expected": {**expected, "communication": sent}}


def run(path: Path, pattern: str = "") -> tuple[int, int]:
    """Trace what is missing; returns how many cases the file holds and how many were traced now."""
    wanted = dict(cases())
    kept = {
        entry["name"]: entry
        for entry in read(path)
        if "expected" in entry and wanted.get(entry["name"]) == entry["request"]
    }
    missing = [(name, request) for name, request in wanted.items() if name not in kept and pattern in name]
    for number, (name, request) in enumerate(missing, 1):
        kept[name] = trace_one(name, request)
        print(f"{number}/{len(missing)} {name} {kept[name].get('refused', '')}", file=sys.stderr, flush=True)
    path.write_text("\n".join(as_line(kept[name]) for name in sorted(kept)) + "\n", encoding="utf-8")
    return len(kept), len(missing)


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m loralens.lab.trace.ranks.grid", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="part of the case names to trace")
    given = parser.parse_args(arguments)
    held, traced = run(given.file, given.only)
    print(f"{held} cases in the file, {traced} traced")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m loralens.lab.trace CASE.json [--events] [--phase backward]`: one case and what lives at its peak.

CASE.json is the body of `POST /api/memory` (config, method, recipe), or `FILE:NAME` for one of a file's `cases`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from loralens.core.errors import LoraLensError
from loralens.lab.trace.case import TraceResult, trace
from loralens.lab.trace.categories import CATEGORY_OF
from loralens.lab.trace.ledger import TracedStorage


def read_case(text: str) -> dict[str, Any]:
    """A request from a file, or from a file of named cases."""
    path, _, name = text.partition(":")
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if name:
        content = next(case for case in content["cases"] if case["name"] == name)
    return dict(content.get("request", content))


def table(storages: list[TracedStorage], *, merge_layers: bool) -> list[str]:
    """Bytes, how many, category, operator, dtype, shape and owner; equal rows of all layers in one line."""
    rows: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for s in storages:
        owner = re.sub(r"\.\d+(?=\.|$)", ".*", s.owner) if merge_layers else s.owner
        key = (CATEGORY_OF[s.kind], s.kind, s.op, s.dtype, "x".join(map(str, s.shape)), owner)
        row = rows[key]
        row[0] += s.size_bytes
        row[1] += 1
    ordered = sorted(rows.items(), key=lambda item: (item[0][0], -item[1][0]))
    return [f"{size:>16,}  {many:>5}  {'  '.join(key)}" for key, (size, many) in ordered]


def around_peak(result: TraceResult, phase: str, count: int = 40) -> list[str]:
    """The events before and after the peak, one per line."""
    from loralens.lab.trace import peaks

    ledger = result.ledger
    top = peaks.phase_peaks(ledger)[phase].event
    lines = []
    for position in range(max(0, top - count), min(len(ledger.events), top + count)):
        event = ledger.events[position]
        s = ledger.storages[abs(event) - 1]
        mark = "  <- peak" if position + 1 == top else ""
        lines.append(
            f"{'+' if event > 0 else '-'}{s.size_bytes:>15,}  {s.kind:<18} {s.op:<44} {s.dtype:<8} {s.shape} {s.owner}{mark}"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run one case and print it."""
    parser = argparse.ArgumentParser(prog="python -m loralens.lab.trace", description=__doc__)
    parser.add_argument("case")
    parser.add_argument("--events", action="store_true", help="print the events around the peak")
    parser.add_argument("--live", action="store_true", help="print what lives at the peak, grouped")
    parser.add_argument("--layers", action="store_true", help="keep layer numbers apart")
    parser.add_argument("--phase", help="forward, backward or optimizer instead of the highest")
    parser.add_argument("--recipe", default="{}", help="JSON merged over the case's recipe")
    given = parser.parse_args(arguments)
    request = read_case(given.case)
    recipe = {**(request.get("recipe") or {}), **json.loads(given.recipe)}
    try:
        result = trace(request["config"], request.get("method", "full"), recipe)
    except LoraLensError as problem:
        print(f"{problem.message} ({problem.field})", file=sys.stderr)
        return problem.exit_code
    print(json.dumps(result.to_dict(), indent=1))
    phase = given.phase or result.phase
    if given.live or given.phase:
        print(f"# alive at the peak of {phase}: bytes, storages, category, kind, operator, dtype, shape, owner")
        print("\n".join(table(result.living(phase), merge_layers=not given.layers)))
    if given.events:
        print(f"# events around the peak of {phase}")
        print("\n".join(around_peak(result, phase)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Trace the cases and keep them: `PYTHONPATH=backend:tests python -m lab.remote.record tests/oracles/traced-remote.jsonl [NAME]`.

Cases that are there with the same request are not traced again. NAME: only those of which it is a part.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lab.remote import cases, register

from loralens.lab.trace import grid


def main(path: Path, part: str = "") -> None:
    """One process, one case after the other."""
    register()
    wanted = dict(cases.cases())
    there = {line["name"]: line for line in grid.read(path)}
    kept = {name: line for name, line in there.items() if name in wanted and line["request"] == wanted[name]}
    for name, request in wanted.items():
        if part in name and (part or name not in kept):
            kept[name] = grid.trace_one(name, request)
            print(name, kept[name].get("refused", ""), file=sys.stderr, flush=True)
    path.write_text("".join(grid.as_line(kept[name]) + "\n" for name in sorted(kept)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

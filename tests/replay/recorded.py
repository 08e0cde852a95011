"""The recorded answers: one line a case in tests/oracles/replay.tsv, so that a deliberate change shows in the diff.

A line holds the case's name, the peak's phase and every phase's bytes, the counts, and a digest of all other numbers.
"""

from __future__ import annotations

from typing import Any

from replay.answers import digest
from replay.cases import ORACLES
from replay.trees import Answers

FILE = ORACLES / "replay.tsv"
PHASES = ("forward", "backward", "optimizer")
ABOUT = "# case\tphase\tforward\tbackward\toptimizer\ttotal\ttrainable\tthe rest; written by `make replay-record`\n"


def line(name: str, found: dict[str, Any]) -> str:
    """One case as it stands in the file."""
    if "refused" in found:
        return f"{name}\trefused: {found['refused']}"
    shown = [name]
    if "phase" in found:
        shown += [str(found[field]) for field in ("phase", *PHASES, "total", "trainable")]
    rest = {field: value for field, value in found.items() if field not in ("phase", *PHASES, "total", "trainable")}
    return "\t".join([*shown, digest(rest)])


def lines(answers: Answers) -> dict[str, str]:
    """Every case's line, by its name."""
    return {name: line(name, found) for name, found in answers.items()}


def read() -> dict[str, str]:
    """The recorded lines, by the case's name."""
    rows = FILE.read_text(encoding="utf-8").splitlines()[1:]
    return {row.split("\t", 1)[0]: row for row in rows}


def write(answers: Answers, *, kept: bool) -> int:
    """Write the file, in the order of names; with `kept`, cases that were not asked stay. Returns how many lines changed."""
    old = read() if FILE.exists() else {}
    new = {**(old if kept else {}), **lines(answers)}
    FILE.write_text(ABOUT + "".join(new[name] + "\n" for name in sorted(new)), encoding="utf-8")
    return sum(old.get(name) != row for name, row in new.items())

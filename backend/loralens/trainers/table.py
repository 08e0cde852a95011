"""What the keys of a trainer mean, as data: `tables/NAME.json`.

Every key is one of four things: `in_code` (it becomes recipe words, in the trainer's module), `ignored` (it has nothing to
do with memory, for a reason), `approximate` (it matters and is not counted: the answer says what it does) or `blocks` (what
is asked about is something else, and no figure is given). A key that no row knows is listed as unknown. Names may end in `*`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Final

DATA: Final = Path(__file__).parent / "tables"
IN_CODE, IGNORED, APPROXIMATE, BLOCKS, UNKNOWN = "in_code", "ignored", "approximate", "blocks", "unknown"


@dataclass(frozen=True, slots=True)
class Table:
    """One trainer's keys. `names` and `patterns`: what each is, and what is said of it; a name counts before patterns."""

    name: str
    trainer: str
    source: str
    marks: tuple[str, ...]
    needs: tuple[str, ...]
    names: Mapping[str, tuple[str, str]]
    patterns: tuple[tuple[str, tuple[str, str]], ...]

    def row(self, key: str) -> tuple[str, str]:
        """What a key is, and what is said of it; of several patterns the longest counts."""
        if key in self.names:
            return self.names[key]
        return next((row for pattern, row in self.patterns if fnmatchcase(key, pattern)), (UNKNOWN, ""))

    def read_in(self, group: str) -> list[str]:
        """The last parts of the names in a group that become recipe words."""
        split = (name.rpartition(".") for name, (kind, _) in self.names.items() if kind == IN_CODE)
        return [last for above, _, last in split if above == group]

    def known(self) -> list[str]:
        """Names without a pattern, for suggestions."""
        return list(self.names)


@cache
def table(name: str) -> Table:
    """A table with what it includes (`huggingface:args` puts `args.` before each included name)."""
    given = _data(name)
    rows = _rows(given, "")
    for included in given.get("include", ()):
        other, _, group = included.partition(":")
        rows += _rows(_data(other), f"{group}." if group else "")
    names: dict[str, tuple[str, str]] = {}
    patterns: dict[str, tuple[str, str]] = {}
    for key, kind, says in rows:  # a trainer's own rows stand before what it includes
        (patterns if "*" in key else names).setdefault(key, (kind, says))
    longest = sorted(patterns.items(), key=lambda one: -len(one[0]))
    return Table(
        name, given["trainer"], given["source"], tuple(given["marks"]), tuple(given["needs"]), names, tuple(longest)
    )


def optimizers() -> dict[str, Any]:
    """Optimizer names of transformers and of trainers, as recipe words; `near`: the nearest one that is modelled."""
    return _data("optimizers")


def torchtune_models() -> dict[str, dict[str, str]]:
    """torchtune's builders by catalogue id, the tokenizers of families that have none of their own name, and which have no QLoRA."""
    return _data("torchtune-models")


@cache
def _data(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    return found


def _rows(given: dict[str, Any], before: str) -> list[tuple[str, str, str]]:
    rows = [(before + name, IN_CODE, "") for name in given.get("in_code", ())]
    for kind in (BLOCKS, APPROXIMATE):
        rows += [(before + name, kind, says) for name, says in given.get(kind, {}).items()]
    for reason, names in given.get("ignored", {}).items():
        rows += [(before + name, IGNORED, reason) for name in names]
    return rows

"""What differs between two sets of answers, as rows of a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from replay.trees import Answers


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one case that has another value."""

    case: str
    field: str
    before: Any
    after: Any

    @property
    def percent(self) -> float | None:
        """By how much a number changed; None where there is nothing to divide."""
        numbers = all(isinstance(value, (int, float)) for value in (self.before, self.after))
        return 100 * (self.after / self.before - 1) if numbers and self.before else None

    @property
    def weight(self) -> float:
        """What comes first in the table: words and refusals, then the largest changes."""
        return float("inf") if self.percent is None else abs(self.percent)


def differences(before: Answers, after: Answers) -> list[Difference]:
    """Fields that both answers have and that differ, and refusals that only one has; the largest first."""
    found = []
    for case in sorted(before.keys() & after.keys()):
        old, new = before[case], after[case]
        if ("refused" in old) != ("refused" in new):
            found.append(Difference(case, "refused", old.get("refused", "answered"), new.get("refused", "answered")))
        found += [
            Difference(case, field, old[field], new[field])
            for field in old
            if field in new and old[field] != new[field]
        ]
    return sorted(found, key=lambda row: (-row.weight, row.case))


def table(found: list[Difference], limit: int) -> list[str]:
    """Lines for people: the rows, then how many there are of each field."""
    rows = [("case", "field", "before", "after", "%"), *(_cells(row) for row in found[:limit])]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(text.ljust(width) if column < 2 else text.rjust(width) for column, (text, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]  # fmt: skip
    if len(found) > limit:
        lines.append(f"… and {len(found) - limit:,} more (ROWS={len(found)} shows all)")
    groups = Counter((row.case.split("/")[0], row.field.split(".")[0]) for row in found)
    counted = ", ".join(f"{group} {field} {count}" for (group, field), count in groups.most_common(12))
    return [*lines, "", f"{len(found):,} fields of {len({row.case for row in found}):,} cases differ: {counted}"]


def _cells(row: Difference) -> tuple[str, str, str, str, str]:
    percent = "" if row.percent is None else f"{row.percent:+.4f}"
    return row.case, row.field, _text(row.before), _text(row.after), percent


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)

"""Write docs/course-numbers.md from the ledger: python -m loralens.planner.course_markdown docs/course-numbers.md."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loralens.core.texts import LANGUAGES, Language
from loralens.planner.course import course_answer
from loralens.planner.texts import TEXTS

if TYPE_CHECKING:
    from loralens.planner.course_shapes import CourseNumber


COLUMNS: Final = ("what", "printed", "rule", "substituted", "exact", "verdict", "remark")


def markdown() -> str:
    """The whole document, Chinese first."""
    rows = course_answer()["rows"]
    return "\n\n".join(_part(language, rows) for language in LANGUAGES) + "\n"


def _said(name: str, language: Language, **values: str) -> str:
    return TEXTS(f"course.{name}", **values)[language]


def _part(language: Language, rows: list[CourseNumber]) -> str:
    header = [_said(f"column.{name}", language) for name in COLUMNS]
    lines = [
        f"# {_said('document.title', language)}",
        "",
        _said("document.introduction", language),
        "",
        _line(header),
        _line(["---"] * len(header)),
        *(_line(_cells(language, row)) for row in rows),
        "",
        f"## {_said('document.regimes', language)}",
        "",
    ]
    regimes: dict[str, list[str]] = {}
    for row in rows:
        regimes.setdefault(row["exact"]["regime_text"][language], []).append(row["printed"])
    comma = _said("document.list", language)
    for regime, printed in regimes.items():
        lines.append("- " + _said("document.regime", language, printed=comma.join(printed), regime=regime))
    return "\n".join(lines)


def _cells(language: Language, row: CourseNumber) -> list[str]:
    return [
        row["what"][language],
        row["printed"],
        row["formula_text"][language],
        row["substituted_text"][language],
        row["exact"]["text"][language],
        row["verdict_text"][language],
        row["text"][language],
    ]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")

"""Write docs/course-numbers.md from the ledger: python -m loralens.planner.course_markdown docs/course-numbers.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from loralens.planner.course import course_answer

if TYPE_CHECKING:
    from loralens.planner.course_shapes import CourseNumber


Language = Literal["zh", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("zh", "en")
INTRODUCTION: Final = {
    "zh": "课程第 2 部分印出的每一个数：由哪条规则得到、规则给出多少、精确值是多少、该怎么看。"
    "此文件由程序生成，同样的内容在 `GET /api/course-numbers`。P 是课程的名义参数量，A 是适配器的参数量。",
    "en": "Every number that part 2 of the course prints: the rule behind it, what the rule gives, what is exact, and "
    "what to make of it. This file is generated; the same content is at `GET /api/course-numbers`. P stands for the "
    "course's nominal parameter count, A for the adapter's.",
}
HEADER: Final = {
    "zh": ("什么", "印出的数", "规则", "代入", "精确值", "判断", "说明"),
    "en": ("what", "printed", "rule", "with numbers", "exact", "verdict", "remark"),
}
TITLE: Final = {"zh": "课程中的数字", "en": "The course's numbers"}
REGIMES: Final = {"zh": "精确值对应的设置", "en": "Settings behind the exact values"}


def markdown() -> str:
    """The whole document, Chinese first."""
    rows = course_answer()["rows"]
    return "\n\n".join(_part(language, rows) for language in LANGUAGES) + "\n"


def _part(language: Language, rows: list[CourseNumber]) -> str:
    header = HEADER[language]
    lines = [
        f"# {TITLE[language]}",
        "",
        INTRODUCTION[language],
        "",
        _line(header),
        _line(["---"] * len(header)),
        *(_line(_cells(language, row)) for row in rows),
        "",
        f"## {REGIMES[language]}",
        "",
    ]
    regimes: dict[str, list[str]] = {}
    for row in rows:
        regimes.setdefault(row["exact"]["regime_text"][language], []).append(row["printed"])
    comma, colon = ("、", "：") if language == "zh" else (", ", ": ")
    lines += [f"- {comma.join(printed)}{colon}{regime}" for regime, printed in regimes.items()]
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


def _line(cells: Any) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")

"""The course's rules and set-ups in Chinese: formulas stay as they are, the English phrases in them are put into Chinese."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Final

PHRASES: Final[dict[str, str]] = json.loads(
    resources.files(__package__).joinpath("locales", "course-phrases.zh-CN.json").read_text(encoding="utf-8")
)
"""English phrase to Chinese; a longer one is taken before one that it contains."""

_ORDERED: Final = re.compile("|".join(re.escape(phrase) for phrase in sorted(PHRASES, key=len, reverse=True)))
_MARKS: Final = ((", ", "，"), ("; ", "；"), (": ", "："))


def in_chinese(text: str) -> str:
    """A rule, its numbers or a set-up as a Chinese reader reads it.

    >>> in_chinese("A × 2 bytes, each rounded, then added")
    'A × 2 字节，各自四舍五入后相加'
    """
    found = _ORDERED.sub(lambda phrase: PHRASES[phrase[0]], text)
    for mark, chinese in _MARKS:
        found = found.replace(mark, chinese)
    found = re.sub(r" \(([^()]*[\u4e00-\u9fff][^()]*)\)", r"（\1）", found)
    found = re.sub(r"(?<=[\u4e00-\u9fff]) (?=[\u4e00-\u9fff])", "", found)
    return re.sub(r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[\u4e00-\u9fff])", " ", found)

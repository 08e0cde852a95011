"""The one way an answer becomes text, so that the API and `loralens … --json` print the same bytes; and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from loralens.core.errors import InvalidInput

JsonObject = dict[str, Any]
"""An object of JSON whose names are not ours to list: a config.json, a recipe as it is sent, an event of a job."""
MAX_DEPTH: Final = 32
"""Deepest nesting that is read, where no setting says otherwise; a published config.json has four levels."""
MAX_DIGITS: Final = 100
"""Assumption: no honest number is longer; twice as many still fit a float, so that no product of two overflows."""
_LONG: Final = re.compile(rf"[0-9]{{{MAX_DIGITS + 1}}}")
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")


def to_json(answer: Mapping[str, Any]) -> str:
    """Compact JSON in the answer's own order, non-ASCII text as it is.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot say.
    """
    return json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_json(raw: bytes, *, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """JSON from outside, without the three things that Python's reader lets pass and that end in a wrong answer.

    Raises:
        InvalidInput: a name is given twice in one object (which of the two counts is anybody's guess), a text holds
            half of a surrogate pair (no answer can repeat it), or a whole number has more than 100 digits. `parse_constant`
            is that of `json.loads`, for those who refuse NaN and Infinity here.
        ValueError: it is not JSON in UTF-8, UTF-16 or UTF-32.
        RecursionError: it is nested deeper than Python reads.

    >>> from_json(b'{"rank": 8}')
    {'rank': 8}
    """
    text = raw.decode(json.detect_encoding(raw))
    parse_int = _short if _LONG.search(text) else None
    value = json.loads(text, object_pairs_hook=_once, parse_int=parse_int, parse_constant=parse_constant)
    if _HALF.search(text):
        _refuse_halves(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set[str]()
        for name, _ in pairs:
            if name in seen:
                raise InvalidInput(f"{name[:60]!r} is given twice", field=_shown(name), hint="write it once")
            seen.add(name)
    return found


def _short(digits: str) -> int:
    length = len(digits.removeprefix("-"))
    if length > MAX_DIGITS:
        raise InvalidInput(f"a number of {length} digits; at most {MAX_DIGITS} are read", hint="write a number")
    return int(digits)


def _refuse_halves(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise InvalidInput(f"a text holds {half}, half of a surrogate pair", hint="send text as UTF-8") from None


def _shown(name: str) -> str:
    return name[:60] if name.isprintable() else ascii(name[:60])


def depth(value: Any, limit: int) -> int:
    """Nesting depth of JSON data, counted without recursion and no further than `limit` + 1.

    >>> depth({"a": [1]}, limit=10)
    2
    """
    level, current = 0, [value]
    while current and level <= limit:
        deeper = [item for item in current if isinstance(item, (dict, list))]
        if not deeper:
            return level
        level += 1
        current = [child for item in deeper for child in (item.values() if isinstance(item, dict) else item)]
    return level

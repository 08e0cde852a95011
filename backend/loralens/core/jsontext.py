"""The one way an answer becomes text, so that the API and `loralens … --json` print the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_json(answer: Mapping[str, Any]) -> str:
    """Compact JSON in the answer's own order, non-ASCII text as it is.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot say.
    """
    return json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


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

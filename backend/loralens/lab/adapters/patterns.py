r"""Module-name patterns of PEFT configs, matched as PEFT matches them but only when they are safe to run.

PEFT takes regular expressions in `target_modules`, `rank_pattern` and `alpha_pattern`. A file from a stranger may hold
one that never ends, so only a plain subset is run: name characters, `\.`, `.`, `\d`, `\w`, character classes,
`^`, `$`, one level of `(a|b)` without a quantifier behind it, and few quantifiers on single characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from loralens.core.errors import InvalidInput

MAX_PATTERN_LENGTH: Final = 256
MAX_QUANTIFIERS: Final = 3
"""Backtracking costs at most length ** (quantifiers + 1); names are bounded too, so three stay cheap."""

_ATOM: Final = r"(?:[A-Za-z0-9_\-]|\\[.dw\-_]|\.|\[[A-Za-z0-9_\-|]+\])"
_SAFE: Final = re.compile(rf"\^?(?:{_ATOM}[*+?]?|\((?:\?:)?(?:{_ATOM}[*+?]?|\|)*\))*\$?", re.ASCII)


@lru_cache(maxsize=4096)
def _compiled(pattern: str, field: str, whole: bool) -> re.Pattern[str]:
    quantifiers = sum(pattern.count(sign) for sign in "*+?") - pattern.count("(?:")
    if len(pattern) > MAX_PATTERN_LENGTH or quantifiers > MAX_QUANTIFIERS or not _SAFE.fullmatch(pattern):
        raise InvalidInput(
            f"pattern {pattern[:80]!r} is not among the plain patterns that are run here",
            field=field,
            hint=r"use names, `\.`, `.*`, `\d+`, classes and (a|b); at most three quantifiers, none behind a bracket",
        )
    try:
        return re.compile(pattern if whole else rf"(?:.*\.)?(?:{pattern})$")
    except re.error as error:
        raise InvalidInput(f"pattern {pattern[:80]!r} cannot be read: {error}", field=field) from None


def first_match(patterns: Iterable[str], name: str, field: str) -> str | None:
    """The first pattern that matches the module name or a dotted ending of it.

    Source: `peft.utils.other.get_pattern_key` (huggingface/peft 0.21).

    >>> first_match(["v_proj", "q_proj"], "model.layers.0.self_attn.q_proj", "rank_pattern")
    'q_proj'
    """
    return next((pattern for pattern in patterns if _compiled(pattern, field, False).match(name)), None)


def whole_match(pattern: str, name: str, field: str) -> bool:
    """Whether the pattern matches the whole module name (`target_modules` given as text)."""
    return _compiled(pattern, field, True).fullmatch(name) is not None


def ends_with_name(names: Iterable[str], module: str) -> bool:
    """Whether the module is one of the names or ends in `.name` (`target_modules` given as a list).

    >>> ends_with_name(["q_proj"], "model.layers.0.self_attn.q_proj"), ends_with_name(["proj"], "q_proj")
    (True, False)
    """
    return any(module == name or module.endswith(f".{name}") for name in names)

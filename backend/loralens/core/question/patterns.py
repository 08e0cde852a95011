r"""Module-name patterns of PEFT configs, matched as PEFT matches them but only when they are safe to run.

PEFT takes regular expressions in `target_modules`, `rank_pattern` and `alpha_pattern`. A file from a stranger may hold
one that never ends, so only a plain subset is run: name characters, `\.`, `.`, `\d`, `\w`, character classes,
`^`, `$`, one level of `(a|b)` without a quantifier behind it, and few quantifiers on single characters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Final, TypeVar

from loralens.core.errors import InputTooLarge, InvalidInput

T = TypeVar("T")

MAX_PATTERN_LENGTH: Final = 256
MAX_QUANTIFIERS: Final = 3
MAX_BRANCHES: Final = 64
MAX_PATTERNS: Final = 4000
MAX_STEPS: Final = 300_000_000
"""A few seconds of matching. One match costs at most length ** (quantifiers + 1) steps of backtracking."""

_ATOM: Final = r"(?:[A-Za-z0-9_\-]|\\[.dw\-_]|\.|\[[A-Za-z0-9_\-|]+\])"
_SAFE: Final = re.compile(rf"\^?(?:{_ATOM}[*+?]?|\((?:\?:)?(?:{_ATOM}[*+?]?|\|)*\))*\$?", re.ASCII)


def _quantifiers(pattern: str) -> int:
    return sum(pattern.count(sign) for sign in "*+?") - pattern.count("(?:")


def _branches(pattern: str) -> int:
    """Ways through all alternatives: `(a|b)(c|d|e)` has six, and a mismatch may try each."""
    return math.prod(1 + group.count("|") for group in re.findall(r"\(([^()]*)\)", pattern))


@lru_cache(maxsize=MAX_PATTERNS * 2)
def _compiled(pattern: str, field: str) -> re.Pattern[str]:
    plain = len(pattern) <= MAX_PATTERN_LENGTH and _SAFE.fullmatch(pattern) is not None
    if not plain or _quantifiers(pattern) > MAX_QUANTIFIERS or _branches(pattern) > MAX_BRANCHES:
        raise InvalidInput(
            f"pattern {pattern[:80]!r} is not among the plain patterns that are run here",
            field=field,
            hint=r"use names, `\.`, `.*`, `\d+`, classes and (a|b); at most three quantifiers, none behind a bracket, few alternatives",
        )
    try:
        return re.compile(rf"(?:.*\.)?(?:{pattern})$")
    except re.error as error:
        raise InvalidInput(f"pattern {pattern[:80]!r} cannot be read: {error}", field=field) from None


@lru_cache(maxsize=MAX_PATTERNS)
def whole(pattern: str, field: str) -> re.Pattern[str]:
    """A pattern for the whole module name, as PEFT takes `target_modules` given as a text. Raises: `InvalidInput`.

    One level of group and three quantifiers: a mismatch on a name of 200 characters backtracks at most 200 ** 4 / 24 steps
    in theory and, without quantified groups, stays in the milliseconds that a name of this length costs.
    """
    _compiled(pattern, field)
    return re.compile(pattern)


def check(pattern: str, field: str) -> None:
    """Refuse a pattern that is not run here, whether or not any module would meet it. Raises: `InvalidInput`."""
    _compiled(pattern, field)


def first_match(pairs: Iterable[tuple[str, T]], name: str, field: str) -> T | None:
    """The value of the first pattern that matches the module name or a dotted ending of it.

    Source: `peft.utils.other.get_pattern_key` (huggingface/peft 0.21).

    >>> first_match([("v_proj", 2), ("q_proj", 4)], "model.layers.0.self_attn.q_proj", "rank_pattern")
    4
    """
    return next((value for pattern, value in pairs if _compiled(pattern, field).match(name)), None)


def affordable(patterns: Sequence[str], names: Collection[str], field: str) -> None:
    """Refuse patterns that would be matched for longer than seconds. Raises: `InputTooLarge`."""
    longest = max(map(len, names), default=0)
    steps = len(names) * sum(longest ** (1 + _quantifiers(pattern)) * _branches(pattern) for pattern in patterns)
    if steps > MAX_STEPS:
        raise InputTooLarge(
            f"{len(patterns)} patterns for {len(names)} modules take too long to match",
            field=field,
            hint="use fewer patterns, or patterns without * and +",
        )


def ends_with_name(names: Iterable[str], module: str) -> bool:
    """Whether the module is one of the names or ends in `.name` (`target_modules` given as a list).

    >>> ends_with_name(["q_proj"], "model.layers.0.self_attn.q_proj"), ends_with_name(["proj"], "q_proj")
    (True, False)
    """
    return any(module == name or module.endswith(f".{name}") for name in names)

"""Module-name patterns of PEFT configs: what PEFT matches, in a time that no pattern can stretch.

PEFT takes regular expressions in `target_modules`, `exclude_modules`, `rank_pattern` and `alpha_pattern`. A file from a
stranger may hold one that never ends under backtracking, so they are run as automata.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import Final, TypeVar

from loralens.core.errors import InputTooLarge, InvalidInput
from loralens.core.question.automaton import Automaton, Laborious, Unreadable

T = TypeVar("T")
Matcher = Callable[[str], bool]

MAX_PATTERN_LENGTH: Final = 1024
MAX_PATTERNS: Final = 4000
MAX_HANDED_ON: Final = 6
"""Repetitions in a row (assumption: Unsloth's pattern for vision models has four): some 10^9 steps on a name of 100 characters."""
MAX_WAYS: Final = 1_000_000
"""Ways through the alternatives of a pattern that is handed on: `(a|b)(c|d|e)` has six, and a mismatch may try each."""
MAX_STEPS: Final = 300_000_000
"""Characters compared: a few seconds."""

_NAME: Final = re.compile(r"(?:[A-Za-z0-9_-]|\\?\.)*")
"""A module's name, its dots with a backslash or without: `re` matches it in one pass."""


@lru_cache(maxsize=MAX_PATTERNS * 2)
def _compiled(pattern: str, field: str) -> Matcher:
    """For a name or a dotted ending of it, as PEFT takes the keys of `rank_pattern`. Raises: `InvalidInput`."""
    if len(pattern) <= MAX_PATTERN_LENGTH and _NAME.fullmatch(pattern):
        plain = re.compile(rf"(?:.*\.)?(?:{pattern})")
        return lambda name: plain.fullmatch(name) is not None
    return _automaton(pattern, rf"(?:.*\.)?(?:{pattern})", field)


@lru_cache(maxsize=MAX_PATTERNS)
def whole(pattern: str, field: str) -> Matcher:
    """For the whole name, as PEFT takes `target_modules` given as a text. Raises: `InvalidInput`."""
    return _automaton(pattern, pattern, field)


def _automaton(pattern: str, run: str, field: str) -> Matcher:
    """Raises: `InvalidInput`: the pattern is too long, is none, or looks around or back."""
    try:
        if len(pattern) > MAX_PATTERN_LENGTH:
            raise Unreadable(f"it is longer than {MAX_PATTERN_LENGTH} characters")
        re.compile(pattern)
        automaton = Automaton(run)
    except (re.error, OverflowError, RecursionError, Unreadable) as error:
        raise InvalidInput(
            f"pattern {pattern[:80]!r} cannot be read: {str(error)[:80]}",
            field=field,
            hint=r"use names, `\.`, `.*`, `\d+`, classes, (a|b) and repetitions; nothing that looks around or back",
        ) from None

    def matches(name: str) -> bool:
        try:
            return automaton.matches(name)
        except Laborious:
            raise InputTooLarge(
                f"pattern {pattern[:80]!r} takes too long to match", field=field, hint="list the modules' names"
            ) from None

    return matches


def check(pattern: str, field: str) -> None:
    """Refuse a pattern that is not run here, whether or not any module would meet it. Raises: `InvalidInput`."""
    _compiled(pattern, field)


def check_handed_on(pattern: str, field: str) -> None:
    """Refuse a pattern that is not run here but by whoever gets the file, where it may take for ever. Raises: `InvalidInput`.

    More is let through than `check` does, since libraries write long patterns: all but a repeated group with a repetition or
    a choice inside, a reference back, and more open repetitions in a row than any library writes.

    >>> check_handed_on(r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|k_proj).*?)", "target_modules")
    """
    why = None
    if _BACK.search(pattern):
        why = "refers back to a group, so matching it may never end"
    elif (most := _repetitions(pattern)) is None:
        why = "repeats a group that repeats or chooses inside, so matching it may never end"
    elif most > MAX_HANDED_ON:
        why = f"has {most} repetitions in a row, so matching it may take for ever"
    elif math.prod(1 + group.count("|") for group in re.findall(r"\(([^()]*)\)", pattern)) > MAX_WAYS:
        why = "has too many alternatives in a row, so matching it may take for ever"
    else:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            why = f"cannot be read: {str(error)[:80]}"
    if why is not None:
        raise InvalidInput(
            f"pattern {pattern[:80]!r} {why}",
            field=field,
            hint="list the modules' names, or write the pattern without repeated groups",
        )


_BACK: Final = re.compile(r"(?<!\\)(?:\\\\)*(?:\\[1-9]|\(\?P=|\(\?\()")


class _Group:
    """An open group of a pattern: repetitions in the longest of its finished choices, and in the present one."""

    def __init__(self) -> None:
        self.longest = self.present = 0
        self.varies = False  # is there a repetition or a choice in it?


def _repetitions(pattern: str) -> int | None:
    """Most repetitions that stand in a row on one way through a pattern; None where one repeats what varies itself."""
    open_groups = [_Group()]
    at, end = 0, len(pattern)
    while at < end:
        sign, group = pattern[at], open_groups[-1]
        at += 1
        if sign == "\\":
            at += 1
        elif sign == "[":
            at = _behind_class(pattern, at)
        elif sign == "(":
            open_groups.append(_Group())
            at += pattern[at : at + 1] == "?"  # what follows it is no repetition
        elif sign == ")" and len(open_groups) > 1:
            open_groups.pop()
            repeated = at < end and pattern[at] in "*+{"
            if group.varies and repeated:
                return None
            open_groups[-1].present += max(group.longest, group.present)
            open_groups[-1].varies |= group.varies
        elif sign == "|":
            group.longest, group.present, group.varies = max(group.longest, group.present), 0, True
        elif sign in "*+?{":
            group.varies = True
            lazy = sign == "?" and pattern[at - 2 : at - 1] in ("*", "+", "?", "}")
            group.present += not lazy and sign != "?"
    return max(open_groups[0].longest, open_groups[0].present)


def _behind_class(pattern: str, at: int) -> int:
    """Where a class `[...]`, whose inside begins at `at`, is over."""
    at += pattern[at : at + 1] == "^"
    at += pattern[at : at + 1] == "]"  # the first one is a member
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at + 1


def first_match(pairs: Iterable[tuple[str, T]], name: str, field: str) -> T | None:
    """The value of the first pattern that matches the module name or a dotted ending of it.

    Source: `peft.utils.other.get_pattern_key` (huggingface/peft 0.21).

    >>> first_match([("v_proj", 2), ("q_proj", 4)], "model.layers.0.self_attn.q_proj", "rank_pattern")
    4
    """
    return next((value for pattern, value in pairs if _compiled(pattern, field)(name)), None)


def affordable(patterns: Sequence[str], names: Collection[str], field: str) -> None:
    """Refuse patterns that would be matched for longer than seconds. Raises: `InputTooLarge`."""
    steps = len(patterns) * len(names) * max(map(len, names), default=0)
    if steps > MAX_STEPS:
        raise InputTooLarge(
            f"{len(patterns)} patterns for {len(names)} modules take too long to match",
            field=field,
            hint="use fewer patterns",
        )


def ends_with_name(names: Iterable[str], module: str) -> bool:
    """Whether the module is one of the names or ends in `.name` (`target_modules` given as a list).

    >>> ends_with_name(["q_proj"], "model.layers.0.self_attn.q_proj"), ends_with_name(["proj"], "q_proj")
    (True, False)
    """
    return any(module == name or module.endswith(f".{name}") for name in names)

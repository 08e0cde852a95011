"""Arrays of a shell script: `NAME=(words)`, on one line or several, `NAME+=(words)`, and `${NAME[@]}` where they are used.

What a script adds under a condition is left out: conditions are not evaluated.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Final

from loralens.trainers.files import TextPlace

Placed = tuple[int, str, TextPlace]
"""A word with the number of its line, and its place."""

_OPENS: Final = re.compile(r"([A-Za-z_]\w{0,80})(\+?)=\((.*)", re.DOTALL)
_USED: Final = re.compile(r"\"?\$\{([A-Za-z_]\w{0,80})\[[@*]\]\}\"?")
_VARIABLE: Final = re.compile(r"\"?\$\{?([A-Za-z_]\w{0,80})\}?\"?")
MOST: Final = 4_000  # words that arrays come to


def without_arrays(commands: list[list[Placed]]) -> tuple[list[list[Placed]], dict[str, list[Placed]], bool]:
    """The commands that are left, the arrays that stood among them, and whether a condition adds to one."""
    left: list[list[Placed]] = []
    arrays: dict[str, list[Placed]] = {}
    inside: list[Placed] | None = None
    depth, conditional = 0, False
    for command in commands:
        first = command[0][1]
        depth += first in ("if", "case") and inside is None
        depth -= first in ("fi", "esac") and inside is None and depth > 0
        words = list(command)
        opened = _OPENS.fullmatch(first) if inside is None else None
        if opened:
            kept = arrays.get(opened[1], []) if opened[2] else []
            inside = list(kept) if depth == 0 else []
            conditional |= depth > 0
            if depth == 0:
                arrays[opened[1]] = inside
            words[0] = (command[0][0], opened[3], command[0][2])
        if inside is None:
            left.append(command)
            continue
        for number, word, place in words:
            closes = word.endswith(")") and word.count("(") < word.count(")")
            inside += [(number, each, place) for each in _unquoted(word[:-1] if closes else word)]
            if closes:
                inside = None
                break
    return left, arrays, conditional


def _unquoted(word: str) -> list[str]:
    """Quoted text with several words in it is several words where it is used without quotes."""
    if word[:1] in "'\"" and " " in word:
        try:
            return shlex.split(word[1:-1])
        except ValueError:
            return [word]
    return [word] if word else []


def expanded(command: list[Placed], arrays: Mapping[str, list[Placed]], variables: Mapping[str, str]) -> list[Placed]:
    """A command with its arrays' words in their places, and with a script's name that a variable holds."""
    found: list[Placed] = []
    waiting = list(command)
    while waiting and len(found) < MOST:
        number, word, place = waiting.pop(0)
        used = _USED.fullmatch(word)
        if used and used[1] in arrays:
            waiting[:0] = [each for each in arrays[used[1]] if each[1] != word]
            continue
        named = _VARIABLE.fullmatch(word)
        if named and variables.get(named[1], "").endswith(".py"):
            word = variables[named[1]]
        found.append((number, word, place))
    return found

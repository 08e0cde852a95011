r"""Regular expressions that match in time proportional to the text, whatever they are.

Python's `re` backtracks: `a*a*a*b` on a long name takes for ever, and a pattern may come from a stranger's file. Here a
pattern becomes an automaton whose states are all followed at once. It takes characters, classes, `\d \w \s \b`, `^`, `$`,
groups, `|`, and `* + ? {m,n}`, greedy or not. What looks around or back is refused.

Source: Thompson, "Regular expression search algorithm", Communications of the ACM 11 (1968).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

MAX_STATES: Final = 3000
MAX_WORK: Final = 20_000_000
"""Edges that one automaton follows in all: some seconds. A step that was taken before costs nothing."""
_REMEMBERED: Final = 20_000
"""Steps of one automaton that are kept."""

Text = Callable[[str], object]
Edge = tuple[str, Text | None, int]
"""What an edge asks, by what a character is judged (None: it takes no character), and the state behind it."""


class Unreadable(ValueError):
    """A pattern that is not taken here. Its text says why."""


class Laborious(ValueError):
    """A pattern that `MAX_WORK` was not enough for."""


class Automaton:
    r"""A pattern for a whole text, as `re.fullmatch` takes it. Raises: `Unreadable`.

    >>> run = Automaton(r".*language_model.*\.(?:q|v)_proj")
    >>> run.matches("model.language_model.layers.0.self_attn.q_proj"), run.matches("model.visual.q_proj")
    (True, False)
    """

    def __init__(self, pattern: str) -> None:
        self._pattern, self._at = pattern, 0
        self._edges: list[list[Edge]] = []
        self._start, self._end = self._choice()
        if self._at < len(pattern):
            raise Unreadable("a bracket closes that was never opened")
        self._steps: dict[tuple[frozenset[int], str, str], frozenset[int]] = {}
        self._work = 0

    def matches(self, text: str) -> bool:
        """Whether the whole text matches. Raises: `Laborious`."""
        states, before = frozenset({self._start}), ""
        for character in text:
            states = self._behind(states, before, character)
            if not states:
                return False
            before = character
        return self._end in self._reached(states, before, "")

    def _behind(self, states: frozenset[int], before: str, character: str) -> frozenset[int]:
        key = (states, "w" if _word(before) else before and " ", character)
        found = self._steps.get(key)
        if found is None:
            reached = self._reached(states, before, character)
            found = frozenset(
                to for state in reached for _, judge, to in self._edges[state] if judge is not None and judge(character)
            )
            if len(self._steps) >= _REMEMBERED:
                self._steps.clear()
            self._steps[key] = found
        return found

    def _reached(self, states: frozenset[int], before: str, behind: str) -> set[int]:
        """The states that can be reached between two characters, "" being the end of the text, without taking one."""
        holds = {"": True, "^": not before, "$": not behind, "b": _word(before) != _word(behind)}
        reached, ahead = set(states), list(states)
        if self._work > MAX_WORK:
            raise Laborious
        while ahead:
            self._work += 1
            for asked, judge, to in self._edges[ahead.pop()]:
                if judge is None and holds[asked] and to not in reached:
                    reached.add(to)
                    ahead.append(to)
        return reached

    # Building. A part of a pattern is its first and its last state.

    def _state(self) -> int:
        if len(self._edges) >= MAX_STATES:
            raise Unreadable("it is too long")
        self._edges.append([])
        return len(self._edges) - 1

    def _join(self, first: int, last: int, asked: str = "", judge: Text | None = None) -> None:
        self._edges[first].append((asked, judge, last))

    def _choice(self) -> tuple[int, int]:
        first, last = self._state(), self._state()
        while True:
            begin, end = self._row()
            self._join(first, begin)
            self._join(end, last)
            if self._peek() != "|":
                return first, last
            self._at += 1

    def _row(self) -> tuple[int, int]:
        first = end = self._state()
        while self._peek() not in ("", "|", ")"):
            began = self._at
            begin, behind = self._atom()
            least, most = self._times()
            again = self._at
            if (least, most) != (1, 1):
                begin, behind = self._repeated(began, least, most, again)
            self._join(end, begin)
            end = behind
        return first, end

    def _repeated(self, began: int, least: int, most: int | None, again: int) -> tuple[int, int]:
        """The atom that stands at `began`, as often as asked; the pattern is read on at `again`."""
        first = end = self._state()
        last = self._state()
        for count in range(max(least, 1) if most is None else most):
            if count >= least:
                self._join(end, last)
            self._at = began
            begin, behind = self._atom()
            self._join(end, begin)
            if most is None and count >= least - 1:
                self._join(behind, begin)
            end = behind
        if least == 0:
            self._join(first, last)
        self._join(end, last)
        self._at = again
        return first, last

    def _times(self) -> tuple[int, int | None]:
        found = re.compile(r"[*+?]|\{(\d{1,4})(,?)(\d{0,4})\}").match(self._pattern, self._at)
        if found is None:
            return 1, 1
        self._at = found.end()
        if self._peek() == "?":  # lazy: another match is found first, but the same texts match
            self._at += 1
        if self._peek() in ("*", "+", "?", "{"):
            raise Unreadable("a repetition is repeated")
        if found[1] is None:
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[found[0]]
        least = int(found[1])
        return least, (int(found[3]) if found[3] else None if found[2] else least)

    def _atom(self) -> tuple[int, int]:
        sign = self._peek()
        if sign == "(":
            self._at += 1
            if self._peek() == "?":
                if not self._pattern.startswith("?:", self._at):
                    raise Unreadable("a group looks around, has a name or sets a flag")
                self._at += 2
            part = self._choice()
            if self._peek() != ")":
                raise Unreadable("a bracket is never closed")
            self._at += 1
            return part
        first, last = self._state(), self._state()
        if sign in ("^", "$"):
            self._at += 1
            self._join(first, last, sign)
        elif self._pattern.startswith("\\b", self._at):
            self._at += 2
            self._join(first, last, "b")
        else:
            self._join(first, last, judge=self._character())
        return first, last

    def _character(self) -> Text:
        r"""What takes one character: itself, `.`, an escape or a class, judged as `re` judges it."""
        found = re.compile(r"\\[^A-Za-z0-9]|\\[dDwWsS]|\[\^?\]?(?:[^\]\\]|\\.)*\]|[^\\*+?{\[]").match(
            self._pattern, self._at
        )
        if found is None:
            raise Unreadable(f"{self._pattern[self._at : self._at + 2]!r} is not taken here")
        self._at = found.end()
        try:
            return re.compile(found[0]).fullmatch
        except re.error as error:
            raise Unreadable(str(error)) from None

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]


def _word(character: str) -> bool:
    return character != "" and (character.isalnum() or character == "_")

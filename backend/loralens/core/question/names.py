"""Kinds of values that hold names: of modules, alone or with a rank, and of libraries with a version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from loralens.core.question.kinds import MAX_NAME, Kind, Place, Schema, Whole, unknown
from loralens.core.question.patterns import MAX_PATTERN_LENGTH
from loralens.core.question.versions import read_version

MAX_NAMES: Final = 256
MAX_RANK: Final = 65_536


@dataclass(frozen=True)
class Names(Kind):
    """A list of module names; with `pattern_allowed` also one text: a regular expression, or `all-linear`."""

    pattern_allowed: bool = False
    form = "list"

    def read(self, value: Any, at: Place) -> Any:
        """A tuple of names, or the text."""
        if isinstance(value, str) and self.pattern_allowed and 0 < len(value) <= MAX_PATTERN_LENGTH:
            return value
        if isinstance(value, (list, tuple)) and len(value) <= MAX_NAMES and (value or not self.pattern_allowed):
            if all(isinstance(item, str) and 0 < len(item) <= MAX_NAME for item in value):
                return tuple(value)
        allowed = f"a list of up to {MAX_NAMES} module names"
        allowed += ", a regular expression or all-linear" if self.pattern_allowed else ""
        raise at.wrong(allowed, value, 'try ["q_proj", "v_proj"]')

    def shown(self, value: Any) -> Any:
        """A list, or the text."""
        return list(value) if isinstance(value, tuple) else value

    def from_text(self, text: str) -> Any:
        """Names with commas between them; a text with symbols of regular expressions is one, with commas only in `{1,}` or `[,]`."""
        plain = text.strip()
        pattern = plain == "all-linear" or any(symbol in plain for symbol in "*()[]|\\^$+?")
        if self.pattern_allowed and pattern and "," not in re.sub(r"\{\d*,\d*\}|\[[^\]]*\]", "", plain):
            return plain
        return [part.strip() for part in plain.split(",") if part.strip()]

    def schema(self) -> Schema:
        """A list of texts, or a text."""
        name = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}
        names = {"type": "array", "items": name, "maxItems": MAX_NAMES}
        return (
            {"anyOf": [names | {"minItems": 1}, name | {"maxLength": MAX_PATTERN_LENGTH}]}
            if self.pattern_allowed
            else names
        )

    def text_schema(self) -> Schema:
        """No empty text where it would be an empty list of targets."""
        return Kind.text_schema(self) | ({"minLength": 1} if self.pattern_allowed else {})


@dataclass(frozen=True)
class Ranks(Kind):
    """PEFT's `rank_pattern`: module name or regular expression to rank."""

    flat = False
    form = "ranks"

    def read(self, value: Any, at: Place) -> tuple[tuple[str, int], ...]:
        """Pairs in the order in which they stand."""
        if not isinstance(value, Mapping) or len(value) > MAX_NAMES:
            raise at.wrong("an object that maps module names to ranks", value)
        for key, rank in value.items():
            bad_rank = isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= MAX_RANK
            if not isinstance(key, str) or len(key) > MAX_NAME or bad_rank:
                raise at.wrong(f"an object that maps module names to ranks from 1 to {MAX_RANK}", value)
        return tuple(value.items())

    def shown(self, value: Any) -> Any:
        """An object."""
        return dict(value)

    def schema(self) -> Schema:
        """An object of whole numbers."""
        return {"type": "object", "additionalProperties": Whole(1, MAX_RANK).schema()}


@dataclass(frozen=True)
class Versions(Kind):
    """Library versions by name."""

    libraries: tuple[str, ...]
    flat = False
    form = "versions"

    def read(self, value: Any, at: Place) -> tuple[tuple[str, str], ...]:
        """Pairs, sorted by name."""
        if not isinstance(value, Mapping):
            raise at.wrong("an object of library name to version", value)
        for key, version in value.items():
            if key not in self.libraries:
                raise unknown(str(key), self.libraries, at.path)
            if not isinstance(version, str) or len(version) > 40:
                raise at.wrong(
                    "an object of library name to version, each a text",
                    value,
                    'try {"trl": "1.10"}: 1.10 without quotes is 1.1',
                )
            if key != "framework" and not read_version(version):
                way_out = "try the number of a release, or leave the library out"
                raise Place(f"{at.path}.{key}").wrong("a version that begins with a number", version, way_out)
        return tuple(sorted(value.items()))

    def shown(self, value: Any) -> Any:
        """An object."""
        return dict(value)

    def schema(self) -> Schema:
        """An object of texts."""
        properties = {name: {"type": "string"} for name in self.libraries}
        return {"type": "object", "properties": properties, "additionalProperties": False}

"""Reading single recipe fields: types, ranges and the errors that say what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from loralens.core.errors import InvalidInput

MAX_NAME: Final = 200
MAX_NAMES: Final = 256


def mapping(given: Any, where: str, known: Iterable[str]) -> Mapping[str, Any]:
    """`given` as an object that holds only known names."""
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{where} must be an object, got {type(given).__name__}", field=where)
    known = set(known)
    for name in given:
        if name not in known:
            raise unknown(str(name), known, "" if where == "recipe" else where)
    return given


def unknown(name: str, known: Iterable[str], where: str = "") -> InvalidInput:
    """The error for a name that nobody knows, with the closest one that exists."""
    path = f"{where}.{name[:MAX_NAME]}" if where else name[:MAX_NAME]
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(sorted(known))}"
    return InvalidInput(f"unknown recipe field {path!r}", field=path, hint=hint)


def frozen(value: Any) -> Any:
    """A hashable copy of JSON-like data."""
    if isinstance(value, Mapping):
        return ("{}", *((key, frozen(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return ("[]", *(frozen(item) for item in value))
    # True == 1 == 1.0 as dictionary keys: the type is part of the value here
    return (type(value).__name__, value)


def thawed(value: Any) -> Any:
    """The inverse of `frozen`."""
    kind, *rest = value
    if kind == "{}":
        return {key: thawed(item) for key, item in rest}
    if kind == "[]":
        return [thawed(item) for item in rest]
    return rest[0]


def parse_text(name: str, text: str) -> Any:
    """A value from a query string or the command line."""
    plain = text.strip()
    lowered = plain.lower()
    if lowered in ("true", "yes", "on"):
        return True
    if lowered in ("false", "no", "off"):
        return False
    if name in ("target_modules", "modules_to_save"):
        if name == "target_modules" and lowered in ("none", "null"):
            return None
        if name == "target_modules" and ("," not in plain and _is_pattern(plain)):
            return plain
        return [part.strip() for part in plain.split(",") if part.strip()]
    if lowered in ("none", "null") and name not in ("strategy", "offload", "bias", "checkpoint_offload"):
        return None
    for kind in (int, float):
        try:
            return kind(plain)
        except ValueError:
            continue
    return plain


def _is_pattern(text: str) -> bool:
    return text == "all-linear" or any(symbol in text for symbol in "*()[]|\\^$+?")


class Reader:
    """Reads typed values out of one object and names the field in every complaint."""

    def __init__(self, entries: Mapping[str, Any], prefix: str) -> None:
        # null means: not given
        self._entries = {name: value for name, value in entries.items() if value is not None}
        self._nulls = {name for name, value in entries.items() if value is None}
        self._prefix = prefix

    def _path(self, name: str) -> str:
        return f"{self._prefix}.{name}" if self._prefix else name

    def _wrong(self, name: str, allowed: str, value: Any, hint: str | None = None) -> InvalidInput:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return InvalidInput(f"{self._path(name)} must be {allowed}, got {shown}", field=self._path(name), hint=hint)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within [low, high]."""
        value = self._entries.get(name, default)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(name, f"a whole number from {low} to {high}", value, f"try {name}={default}")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A finite number within [low, high]."""
        value = self._entries.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(name, f"a number from {low} to {high}", value, f"try {name}={default}")
        if not low <= value <= high:  # also refuses NaN; an integer may be too long for a float
            raise self._wrong(name, f"a number from {low} to {high}", value, f"try {name}={default}")
        return value

    def boolean(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._entries.get(name, default)
        if value in (0, 1) and not isinstance(value, (float, str)):
            return bool(value)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def optional_boolean(self, name: str) -> bool | None:
        """True, false or null."""
        return None if name not in self._entries else self.boolean(name, False)

    def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
        """One of a fixed set of words."""
        value = self._entries.get(name, default)
        if not isinstance(value, str) or value not in allowed:
            close = difflib.get_close_matches(str(value)[:MAX_NAME], allowed, n=1)
            raise self._wrong(
                name, f"one of {', '.join(allowed)}", value, f"try {name}={close[0] if close else default}"
            )
        return value

    def optional_choice(self, name: str, default: str | None, allowed: Sequence[str]) -> str | None:
        """One of a fixed set of words, or null."""
        if name in self._nulls or self._entries.get(name, default) is None:
            return None
        return self.choice(name, default or allowed[0], allowed)

    def optional_integer(self, name: str, default: int | None, low: int, high: int) -> int | None:
        """A whole number within [low, high], or null."""
        return None if self._entries.get(name, default) is None else self.integer(name, low, low, high)

    def optional_number(self, name: str, default: float | None, low: float, high: float) -> float | None:
        """A number within [low, high], or null."""
        return None if self._entries.get(name, default) is None else self.number(name, low, low, high)

    def names(self, name: str, default: tuple[str, ...] | None, *, text_allowed: bool = False) -> Any:
        """A list of module names; with `text_allowed` also one text (`all-linear` or a regular expression)."""
        value = self._entries.get(name, default)
        if value is None:
            return default
        if isinstance(value, str) and text_allowed and 0 < len(value) <= MAX_NAME:
            return value
        if isinstance(value, (list, tuple)) and len(value) <= MAX_NAMES and (value or not text_allowed):
            if all(isinstance(item, str) and 0 < len(item) <= MAX_NAME for item in value):
                return tuple(value)
        allowed = f"a list of up to {MAX_NAMES} module names" + (
            ", a regular expression or all-linear" if text_allowed else ""
        )
        raise self._wrong(name, allowed, value, 'try ["q_proj", "v_proj"]')

    def ranks(self, name: str) -> tuple[tuple[str, int], ...]:
        """PEFT's `rank_pattern`: module name or regular expression to rank."""
        value = self._entries.get(name) or {}
        if not isinstance(value, Mapping) or len(value) > MAX_NAMES:
            raise self._wrong(name, "an object of module name to rank", value)
        result = []
        for key, rank in value.items():
            bad_rank = isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= 65_536
            if not isinstance(key, str) or len(key) > MAX_NAME or bad_rank:
                raise self._wrong(name, "an object of module name to a rank from 1 to 65536", value)
            result.append((key, rank))
        return tuple(result)

    def fused(self, name: str) -> str:
        """`false`, `true` or "+lora"."""
        value = self._entries.get(name, False)
        if value in (False, None, "none"):
            return "none"
        if value in (True, "yes", "rmsnorm+rope"):
            return "yes"
        if value in ("+lora", "rmsnorm+rope+lora"):
            return "+lora"
        raise self._wrong(name, 'false, true or "+lora"', value)

    def versions(self, name: str) -> tuple[tuple[str, str], ...]:
        """Library versions that change the answer."""
        known = (
            "transformers",
            "torch",
            "peft",
            "bitsandbytes",
            "trl",
            "litgpt",
            "torchtune",
            "accelerate",
            "framework",
        )
        value = self._entries.get(name) or {}
        if not isinstance(value, Mapping):
            raise self._wrong(name, "an object of library name to version", value)
        for key, version in value.items():
            if key not in known:
                raise unknown(str(key), known, name)
            if not isinstance(version, (str, int, float)) or len(str(version)) > 40:
                raise self._wrong(name, "an object of library name to version", value)
        return tuple(sorted((key, str(version)) for key, version in value.items()))

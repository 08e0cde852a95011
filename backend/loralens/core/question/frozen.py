"""Hashable copies of JSON-like data, for keys of what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_PLAIN: Final = frozenset({int, str, float, bool, type(None)})


def frozen(value: Any) -> Any:
    """A hashable copy of JSON-like data."""
    if type(value) in _PLAIN:  # most are; to ask whether something is a Mapping takes ten times as long
        return (type(value).__name__, value)
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

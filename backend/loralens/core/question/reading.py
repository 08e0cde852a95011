"""What of a config.json an answer depends on: a view that notes every look-up, and the key that follows from it.

A config may hold anything beside what the engine reads. A cache keyed by the whole file would keep all of that, and would
miss where only a word that nobody reads differs. So the first computation runs on a `NotedConfig`; what it looked up is the
question, and the values found there are the key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

Path = tuple[str, ...]
Looks = tuple[tuple[Path, str], ...]
"""Every look-up in order: the object's place in the config, and the name looked up there (or `NAMES`, `LENGTH`)."""

NAMES: Final = "\0names"
LENGTH: Final = "\0length"
"""Stand for an iteration and for the number of entries; no config has such names."""


class NotedConfig(Mapping[str, Any]):
    """A JSON object that notes what is looked up in it; objects inside it are such objects too."""

    __slots__ = ("_entries", "_looks", "_path")

    def __init__(self, entries: Mapping[str, Any], path: Path = (), looks: dict[tuple[Path, str], None] | None = None):
        self._entries = entries
        self._path = path
        self._looks: dict[tuple[Path, str], None] = {} if looks is None else looks

    def __getitem__(self, name: str) -> Any:
        self._looks[self._path, name] = None
        value = self._entries[name]
        return NotedConfig(value, (*self._path, name), self._looks) if isinstance(value, Mapping) else value

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or the default."""
        self._looks[self._path, name] = None
        value = self._entries.get(name, default)
        return NotedConfig(value, (*self._path, name), self._looks) if isinstance(value, Mapping) else value

    def __contains__(self, name: object) -> bool:
        self._looks[self._path, str(name)] = None
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._looks[self._path, NAMES] = None
        return iter(self._entries)

    def __len__(self) -> int:
        self._looks[self._path, LENGTH] = None
        return len(self._entries)

    @property
    def looks(self) -> Looks:
        """What has been looked up so far."""
        return tuple(self._looks)


def found(config: Mapping[str, Any], looks: Looks) -> tuple[Any, ...]:
    """What a config has at each of these places: hashable, short, and equal for equal answers only."""
    return tuple([_short(_at(config, path), name) for path, name in looks])


def _at(config: Mapping[str, Any], path: Path) -> Any:
    at: Any = config
    for name in path:
        at = at.get(name) if isinstance(at, Mapping) else None
    return at


def _short(entries: Any, name: str) -> Any:
    if not isinstance(entries, Mapping):
        return None
    if name == NAMES:
        return _digest(list(entries))
    if name == LENGTH:
        return len(entries)
    if name not in entries:
        return None
    value = entries[name]
    if isinstance(value, Mapping):
        return "{}"  # what is in it has looks of its own
    if isinstance(value, (list, tuple)) or (isinstance(value, str) and len(value) > 64):
        return _digest(value)
    return type(value).__name__, value  # True, 1 and 1.0 are equal as keys, and mean different things


def _digest(value: Any) -> bytes:
    from hashlib import blake2b  # with OpenSSL, which takes longer to load than most commands take: few values need it

    return blake2b(json.dumps(value, default=repr).encode("utf-8", "surrogatepass"), digest_size=20).digest()

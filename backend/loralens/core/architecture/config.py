"""Reading a Hugging Face config.json: typed, bounded, and with errors that name the field."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any, Final

from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.kinds import Number, Place, Text, Truth, Whole
from loralens.core.question.versions import CURRENT

# bounds are assumptions, set far beyond any model that exists, so that sizes stay far below 2**63
MAX_WIDTH: Final = 2**22
MAX_VOCABULARY: Final = 2**24
MAX_LAYERS: Final = 2_000
MAX_EXPERTS: Final = 8_192
HINT: Final = "compare with the model's config.json on the Hub"


class Config:
    """A config.json with typed access. Every getter raises `InvalidInput` with `field="config.<name>"`."""

    def __init__(self, entries: Mapping[str, Any], transformers: tuple[int, ...] = CURRENT["transformers"]) -> None:
        if not isinstance(entries, Mapping):
            raise InvalidInput(
                f"config must be an object, got {type(entries).__name__}",
                field="config",
                hint="paste a model's config.json",
            )
        self.entries = entries
        self.transformers = transformers  # whose modelling code runs

    def over(self, instead: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Config:
        """The same config with other values for some names, and with defaults for those that are not there.

        Nothing is copied: only what is looked up is read, and a cache can tell what an answer rests on.
        """
        return Config(ChainMap(dict(instead), self.entries, dict(defaults or {})), self.transformers)  # type: ignore[arg-type]

    def has(self, name: str) -> bool:
        """True when the key is there and not null."""
        return self.entries.get(name) is not None

    def _place(self, name: str) -> Place:
        return Place(f"config.{name}", hint=HINT)

    def _wrong(self, name: str, allowed: str, value: Any) -> InvalidInput:
        return self._place(name).wrong(allowed, value)

    def integer(self, *names: str, default: int | None = None, low: int = 1, high: int = MAX_WIDTH) -> int:
        """A whole number under the first of `names` that is present."""
        for name in names:
            value = self.entries.get(name)
            if value is None:
                continue
            return Whole(low, high).read(value, self._place(name))
        if default is None:
            raise InvalidInput(
                f"config.{names[0]} is missing",
                field=f"config.{names[0]}",
                hint=HINT,
            )
        return default

    def number(self, name: str, default: float, low: float = 0.0, high: float = 1e9) -> float:
        """A finite number."""
        value = self.entries.get(name)
        return default if value is None else float(Number(low, high).read(value, self._place(name)))

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.entries.get(name)
        return default if value is None else Truth(strict=True).read(value, self._place(name))

    def text(self, name: str, default: str) -> str:
        """A short text."""
        value = self.entries.get(name)
        return default if value is None else Text(200).read(value, self._place(name))

    def words(self, name: str, length: int) -> list[str] | None:
        """A list of `length` short texts, or None."""
        value = self.entries.get(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(item, str) and len(item) <= 200 for item in value
        ):
            raise self._wrong(name, f"a list of {length} texts", value)
        if len(value) < length:
            raise self._wrong(name, f"a list of {length} texts", value)
        return list(value[:length])

    def integers(self, name: str, high: int = MAX_WIDTH) -> list[int] | None:
        """A list of whole numbers, or None."""
        value = self.entries.get(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) > MAX_LAYERS:
            raise self._wrong(name, "a list of whole numbers", value)
        for item in value:
            if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item <= high:
                raise self._wrong(name, "a list of whole numbers", value)
        return list(value)

    def pair(self, name: str, default: int, high: int = 65_536) -> tuple[int, int]:
        """Height and width: a list of two whole numbers, or one for both."""
        value = self.entries.get(name)
        if isinstance(value, (list, tuple)):
            if len(value) != 2 or not all(
                isinstance(item, int) and not isinstance(item, bool) and 0 < item <= high for item in value
            ):
                raise self._wrong(name, f"one or two whole numbers from 1 to {high}", value)
            return value[0], value[1]
        side = self.integer(name, default=default, high=high)
        return side, side

    def nested(self, name: str) -> Config | None:
        """A sub-config, or None."""
        value = self.entries.get(name)
        return Config(value, self.transformers) if isinstance(value, Mapping) else None

    def refuse(self, name: str, what: str) -> None:
        """Raise `UnsupportedArchitecture` if a switch that is not modelled is on."""
        if self.flag(name, False):
            raise UnsupportedArchitecture(f"{what} (config.{name}) is not modelled", field=f"config.{name}")

    def divides(self, name: str, whole: int, part: int) -> None:
        """Raise unless `part` divides `whole`."""
        if whole % part:
            raise InvalidInput(
                f"config.{name} {part} must divide {whole}",
                field=f"config.{name}",
                hint=HINT,
            )

"""Numbers of layers or of tokens, as a list or as text with commas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from loralens.core.question.kinds import Kind, Place, Schema


@dataclass(frozen=True)
class Indices(Kind):
    """One number or several, each counted from 0."""

    of: str
    most: int
    largest: int
    form = "list"

    def read(self, value: Any, at: Place) -> tuple[int, ...]:
        """The numbers, each once, in order."""
        found = list(value) if isinstance(value, (list, tuple)) else [value]
        good = [one for one in found if isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= self.largest]
        if not found or len(found) > self.most or len(good) != len(found):
            raise at.wrong(f"1 to {self.most} numbers of {self.of} from 0", value, "try [0, 1, 2]")
        return tuple(sorted(set(good)))

    def shown(self, value: Any) -> Any:
        """A list."""
        return list(value)

    def from_text(self, text: str) -> Any:
        """Numbers with commas between them."""
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [int(part) if part.isdigit() else part for part in parts]

    def schema(self) -> Schema:
        """A list of whole numbers."""
        number = {"type": "integer", "minimum": 0, "maximum": self.largest}
        return {"type": "array", "items": number, "minItems": 1, "maxItems": self.most}


LAYERS: Final = Indices("layers", 1024, 100_000)
TOKENS: Final = Indices("tokens", 4096, 10_000_000)

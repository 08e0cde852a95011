"""The values that a word may take: each kind checks a value, names the way out, and knows its JSON schema.

Every typed value that the project reads from outside is checked by one of these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from loralens.core.errors import InvalidInput

Schema = dict[str, Any]
"""A JSON schema."""
MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: `lora.rank`, and what it is when nobody gives it."""

    path: str
    default: Any = None
    hint: str | None = None  # instead of the kind's own
    word: str = ""  # the flat name, where it is another than the last part of the path

    @property
    def name(self) -> str:
        """What a hint calls it."""
        return self.word or self.path.rsplit(".", 1)[-1]

    def wrong(self, allowed: str, value: Any, hint: str | None = None) -> InvalidInput:
        """The error for a value that is not what is allowed here."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return InvalidInput(f"{self.path} must be {allowed}, got {shown}", field=self.path, hint=self.hint or hint)


def mapping(given: Any, where: str, known: Collection[str], what: str = "field") -> Mapping[str, Any]:
    """`given` as an object that holds only known names.

    Raises:
        InvalidInput: it is no object, or a name in it is not known; the hint names the closest one that is.
    """
    if not isinstance(given, Mapping):
        raise InvalidInput(f"{where} must be an object, got {type(given).__name__}", field=where)
    for name in given:
        if name not in known:
            raise unknown(str(name), known, "" if where in ("recipe", "body") else where, what)
    return given


def entry(given: Mapping[str, Any], name: str, kind: Kind, default: Any = None, *, where: str = "") -> Any:
    """The value under a name of an object, or the default, checked; `where`: the object's own place."""
    return kind.read(given.get(name, default), Place(f"{where}.{name}" if where else name, default))


def unknown(name: str, known: Iterable[str], where: str = "", what: str = "recipe field") -> InvalidInput:
    """The error for a name that nobody knows, with the closest one that exists."""
    known = list(known)
    path = f"{where}.{name[:MAX_NAME]}" if where else name[:MAX_NAME]
    import difflib  # only a mistake pays for it

    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(sorted(known))}"
    return InvalidInput(f"unknown {what} {path!r}", field=path, hint=hint)


class Kind:
    """A kind of value. `read` gives what a recipe holds, `shown` the JSON that an answer shows for it."""

    text: ClassVar[str] = "text"  # what help calls it: integer, number, boolean or text
    choices: tuple[str, ...] = ()  # as they are typed
    nullable = False
    flat = True  # can be said in one line of text
    form: ClassVar[str] = ""  # what a form makes of it where that is not `text`: list, versions or ranks

    def read(self, value: Any, at: Place) -> Any:
        """The value, checked. Raises: `InvalidInput` naming the place and the way out."""
        raise NotImplementedError

    def shown(self, value: Any) -> Any:
        """The value as JSON."""
        return value

    def from_text(self, text: str) -> Any:
        """The value from a query string or the command line, as JSON and not checked yet."""
        plain = text.strip()
        lowered = plain.lower()
        if lowered in ("true", "yes", "on"):
            return True
        if lowered in ("false", "no", "off"):
            return False
        if lowered in ("none", "null") and lowered not in self.choices:
            return None
        for kind in (int, float):
            try:
                return kind(plain)
            except ValueError:
                continue
        return plain

    def schema(self) -> Schema:
        """The JSON schema of the value in a body."""
        raise NotImplementedError

    def text_schema(self) -> Schema:
        """The JSON schema of the value in a query string."""
        schema: Schema = {"type": "string" if self.text == "text" else self.text}
        return schema | ({"enum": list(self.choices)} if self.choices else {})


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number within [low, high]."""

    low: int
    high: int
    text = "integer"

    def read(self, value: Any, at: Place) -> int:
        """2048.0 is 2048; true is no number."""
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise at.wrong(f"a whole number from {self.low} to {self.high}", value, self._hint(at))
        return value

    def _hint(self, at: Place) -> str:
        return f"try {at.name}={self.low if at.default is None else at.default}"

    def schema(self) -> Schema:
        """With its range."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def text_schema(self) -> Schema:
        """With its range."""
        return self.schema()


@dataclass(frozen=True)
class Number(Kind):
    """A finite number within [low, high]; `inside`: neither end itself."""

    low: float
    high: float
    inside: bool = False
    text = "number"

    def read(self, value: Any, at: Place) -> float:
        """Infinity and not-a-number are none."""
        number = not isinstance(value, bool) and isinstance(value, (int, float))
        # comparing says no to infinity and not-a-number, and takes whole numbers that no float holds
        if not number or not self.low <= value <= self.high or (self.inside and value in (self.low, self.high)):
            hint = f"try {at.name}={self.low if at.default is None else at.default}"
            allowed = f"above {self.low} and below {self.high}" if self.inside else f"from {self.low} to {self.high}"
            raise at.wrong(f"a number {allowed}", value, hint)
        found: float = value
        return found

    def schema(self) -> Schema:
        """With its range."""
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def text_schema(self) -> Schema:
        """With its range."""
        return self.schema()


@dataclass(frozen=True)
class Truth(Kind):
    """True or false; unless `strict`, 0 and 1 are taken too."""

    strict: bool = False
    text = "boolean"

    def read(self, value: Any, at: Place) -> bool:
        """As a truth value."""
        if isinstance(value, bool) or (not self.strict and isinstance(value, int) and value in (0, 1)):
            return bool(value)
        raise at.wrong("true or false", value)

    def schema(self) -> Schema:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Choice(Kind):
    """One of a fixed set of words."""

    choices: tuple[str, ...]

    def read(self, value: Any, at: Place) -> str:
        """The hint names the closest word."""
        if isinstance(value, str) and value in self.choices:
            return value
        import difflib

        close = difflib.get_close_matches(str(value)[:MAX_NAME], self.choices, n=1)
        best = close[0] if close else at.default or self.choices[0]
        raise at.wrong(f"one of {', '.join(self.choices)}", value, f"try {at.name}={best}")

    def schema(self) -> Schema:
        """An enum."""
        return {"type": "string", "enum": list(self.choices)}


@dataclass(frozen=True)
class Text(Kind):
    """A text of at most `most` characters."""

    most: int

    def read(self, value: Any, at: Place) -> str:
        """As it stands."""
        if not isinstance(value, str) or len(value) > self.most:
            raise at.wrong(f"text of at most {self.most} characters", value)
        return value

    def schema(self) -> Schema:
        """With its length."""
        return {"type": "string", "maxLength": self.most}


@dataclass(frozen=True)
class Maybe(Kind):
    """A value of another kind, or none."""

    of: Kind
    nullable = True

    def __post_init__(self) -> None:
        choices = self.of.choices
        object.__setattr__(self, "choices", (*choices, "none") if choices else ())
        object.__setattr__(self, "text", self.of.text)
        object.__setattr__(self, "form", self.of.form)

    def read(self, value: Any, at: Place) -> Any:
        """None is a value of its own."""
        return None if value is None else self.of.read(value, at)

    def shown(self, value: Any) -> Any:
        """As the other kind shows it."""
        return None if value is None else self.of.shown(value)

    def from_text(self, text: str) -> Any:
        """`none` and `null` mean none."""
        return None if text.strip().lower() in ("none", "null") else self.of.from_text(text)

    def schema(self) -> Schema:
        """The other kind's, with null."""
        schema = self.of.schema()
        if "anyOf" in schema:
            return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
        null = {"type": [schema["type"], "null"]}
        return schema | null | ({"enum": [*schema["enum"], None]} if "enum" in schema else {})

    def text_schema(self) -> Schema:
        """Ranges do not bind the word `none`."""
        return Kind.text_schema(self)


@dataclass(frozen=True)
class Fused(Kind):
    """False, true or "+lora"; the recipe holds `none`, `yes` or `+lora`."""

    choices: tuple[str, ...] = ("false", "true", "+lora")

    def read(self, value: Any, at: Place) -> str:
        """Several spellings of the three."""
        if value in (False, "none"):
            return "none"
        if value in (True, "yes", "rmsnorm+rope"):
            return "yes"
        if value in ("+lora", "rmsnorm+rope+lora"):
            return "+lora"
        raise at.wrong('false, true or "+lora"', value, f"try {at.name}=true")

    def shown(self, value: Any) -> Any:
        """False, true or the text."""
        return {"none": False, "yes": True}.get(value, value)

    def schema(self) -> Schema:
        """The three values."""
        return {"enum": [False, True, "+lora", 0, 1]}

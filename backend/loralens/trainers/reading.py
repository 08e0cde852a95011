"""A training set-up as it is read from a file: model, method, recipe words, and what was not understood."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from loralens.core.errors import InvalidInput
from loralens.core.question.kinds import Place as WordPlace
from loralens.core.question.recipe import ALL_WORDS
from loralens.trainers.files import FileSetting, SourceFile
from loralens.trainers.table import APPROXIMATE, BLOCKS, IGNORED, UNKNOWN, Table, optimizers

WORDS: Final = {row.name: row for row in ALL_WORDS}
NOTHING: Final = (None, False, "", "none", "None", "null", 0, "false")
"""Values with which a key says that it is not used."""


@dataclass(slots=True)
class Reading:
    """See the module's docstring. `because`: the settings from which a word follows, by flat name."""

    OTHER_PROGRAMS: ClassVar[tuple[str, ...]] = ("megatron", "swift rlhf", "trl other")

    table: Table
    source: SourceFile
    files: Mapping[str, SourceFile] = field(default_factory=dict)
    stack: dict[str, str] = field(default_factory=dict)
    gpus: int | None = None  # as the user says
    model: str | None = None
    model_setting: FileSetting | None = None
    config: dict[str, Any] | None = None  # a model that the file describes by its sizes
    method: str = "full"
    words: dict[str, Any] = field(default_factory=dict)
    because: dict[str, tuple[FileSetting, ...]] = field(default_factory=dict)
    approximate: list[tuple[FileSetting, str]] = field(default_factory=list)
    blocks: list[tuple[FileSetting, str]] = field(default_factory=list)
    unknown: list[FileSetting] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: int = 0
    said: int = 0

    def setting(self, key: str) -> FileSetting | None:
        """The setting of a key, if the file has it."""
        return self.source.settings.get(key)

    def get(self, *keys: str) -> Any:
        """The first of these keys that has a value; None where none has."""
        for key in keys:
            found = self.source.settings.get(key)
            if found is not None and found.value is not None and found.value != "":
                return found.value
        return None

    def true(self, *keys: str) -> bool:
        """Is one of these keys switched on?"""
        return any(self.get(key) not in (*NOTHING, []) for key in keys)

    def whole(self, key: str, default: int | None) -> int | None:
        """A whole number; what is written as something else is a question to the user."""
        value = self.get(key)
        if value is None or value == "auto":
            return default
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            if isinstance(value, str) and value[:1] in "$=":
                self.ask(f"{key} is {value}, which is set outside this file: counted as {default}")
                return default
            raise InvalidInput(
                f"{self.where(key)}: {key} must be a whole number, got {value!r:.60}",
                field=key,
                hint=f"try {key}: {default or 1}",
            )
        return value

    def where(self, key: str) -> str:
        """`train.yaml:12`, or the file."""
        found = self.source.settings.get(key)
        return found.where if found is not None else self.source.name

    def train(self, method: str, *keys: str) -> None:
        """What is trained; `keys`: from which settings it follows."""
        self.method = method
        self.because["method"] = self.settings(*keys)

    def settings(self, *keys: str) -> tuple[FileSetting, ...]:
        """The settings of these keys that the file has."""
        return tuple(one for key in keys if (one := self.source.settings.get(key)) is not None)

    def say(self, word: str, value: Any, *keys: str) -> None:
        """Give a recipe word its value; `keys`: from which settings it follows.

        Raises:
            InvalidInput: a value that the word does not take; names the file's own key.
        """
        settings = self.settings(*keys)
        if value is not None or WORDS[word].kind.nullable:
            try:
                row = WORDS[word]
                row.kind.read(value, WordPlace(row.path, row.default))
            except InvalidInput as error:
                place = f"{settings[0].where}: {settings[0].key}: " if settings else ""
                raise InvalidInput(f"{place}{error.message}", field=error.field, hint=error.hint) from None
        self.words[word] = value
        self.because[word] = settings

    def near(self, says: str, *keys: str) -> None:
        """Something matters and is not counted."""
        for key in keys:
            found = self.source.settings.get(key)
            if found is not None:
                self.approximate.append((found, says))
                return

    def block(self, says: str, key: str) -> None:
        """What is asked about is something else."""
        found = self.source.settings.get(key)
        if found is not None:
            self.blocks.append((found, says))

    def ask(self, question: str) -> None:
        """Something that the file cannot say."""
        if question not in self.questions:
            self.questions.append(question)

    def names(self, value: Any) -> list[str]:
        """A list of names, written as a list or as text with commas."""
        if isinstance(value, (list, tuple)):
            return [str(one) for one in value]
        return [part.strip() for part in str(value).split(",") if part.strip()]

    def optimizer(self, key: str) -> None:
        """The recipe's optimizer, by transformers' name."""
        value = self.get(key)
        if value is None:
            return
        name, known = str(value), optimizers()
        if name in known["values"]:
            self.say("optimizer", known["values"][name], key)
        elif name in known["near"]:
            self.say("optimizer", known["near"][name], key)
            self.near(f"{name} is not modelled: counted as {known['near'][name]}", key)
        else:
            self.block(f"the optimizer {name[:40]} is not modelled", key)

    def classify(self) -> None:
        """Sort what no code has read: blocks, approximations, and keys that nobody knows."""
        taken = {one.key for one, _ in (*self.approximate, *self.blocks)}
        for key, found in self.source.settings.items():
            kind, says = self.table.row(key)
            if kind == UNKNOWN and self.source.program in self.OTHER_PROGRAMS:
                kind = IGNORED  # blocked as a whole, and these are its own
            if kind == IGNORED and not self._mistaken(key):
                self.left_out += 1
            elif kind in (UNKNOWN, IGNORED):
                self.unknown.append(found)
            elif kind in (APPROXIMATE, BLOCKS) and key not in taken and found.value not in (*NOTHING, [], {}):
                (self.blocks if kind == BLOCKS else self.approximate).append((found, says))
            else:
                self.said += 1

    def _mistaken(self, key: str) -> bool:
        """Is a key that only a pattern leaves out one that is read, but for a letter or two?"""
        if key in self.table.names:
            return False
        group, _, last = key.rpartition(".")
        return bool(difflib.get_close_matches(last, self.table.read_in(group), n=1, cutoff=0.9))

    def closest(self, key: str) -> str | None:
        """A key that the unknown one may have meant."""
        close = difflib.get_close_matches(key, self.table.known(), n=1, cutoff=0.8)
        return close[0] if close else None


def is_true(value: Any) -> bool:
    """`true`, `auto` and 1 are."""
    return value in (True, 1, "true", "True", "auto", "yes")

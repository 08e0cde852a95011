"""What is read of a user's files: one flat list of settings, each with the place where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from loralens.core.errors import InputTooLarge, InvalidInput

MAX_FILES: Final = 16
MAX_SETTINGS: Final = 2_000
MAX_FILE_BYTES: Final = 1_048_576
"""A training config has some kilobytes; a notebook without its outputs some hundred (assumption)."""


@dataclass(frozen=True, slots=True)
class TextPlace:
    """Where a value stands: its text from one position to another, lines and columns from 0."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class FileSetting:
    """One key with its value. Keys inside an object are dotted; `place` is None for what cannot be replaced as text."""

    key: str
    value: Any
    file: str
    line: int  # from 1; 0: nowhere
    place: TextPlace | None = None

    @property
    def where(self) -> str:
        """`train.yaml:12`."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(slots=True)
class SourceFile:
    """A file that was read: its settings by dotted key, and what kind of file it is."""

    name: str
    kind: str  # yaml, json, shell, python, notebook
    text: str
    settings: dict[str, FileSetting] = field(default_factory=dict)
    whole: Mapping[str, Any] = field(default_factory=dict)
    program: str = ""  # of a command line: `swift sft`
    indent: str = ""  # of a command line's arguments
    first: TextPlace | None = None  # of a command line: its first argument
    notes: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any, line: int, place: TextPlace | None = None) -> None:
        """Keep a setting; one that is given twice counts as it stands last, and is noted."""
        if len(self.settings) >= MAX_SETTINGS:
            raise InputTooLarge(f"{self.name} has more than {MAX_SETTINGS:,} keys", field="files")
        if key in self.settings:
            self.notes.append(f"{key} is given twice: the last one counts")
        self.settings[key] = FileSetting(key, value, self.name, line, place)


def text_of(name: str, content: str | bytes) -> str:
    """The file as text.

    Raises:
        InputTooLarge: more than a training config has.
        InvalidInput: it is no text.
    """
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if len(raw) > MAX_FILE_BYTES:
        raise InputTooLarge(
            f"{name} has more than {MAX_FILE_BYTES:,} bytes",
            field="files",
            hint="a training config is a small file; clear the outputs of a notebook first",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidInput(
            f"{name} is not text in UTF-8", field="files", hint="give the trainer's YAML, script or notebook"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def flat(value: Any, prefix: str = "") -> dict[str, object]:
    """An object's leaves by dotted key; lists are leaves.

    >>> flat({"fsdp_config": {"version": 2}, "fsdp": []})
    {'fsdp_config.version': 2, 'fsdp': []}
    """
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if prefix else {}
    found: dict[str, object] = {}
    for key, entry in value.items():
        found |= flat(entry, f"{prefix}.{key}" if prefix else str(key))
    return found

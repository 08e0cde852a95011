"""Sentences that are answered in both languages, by key: `locales/en.json` and `locales/zh-CN.json` beside the modules that say them.

    TEXTS = Texts(__package__)
    TEXTS("rehearsal", mix=0.25, less=TEXTS("less"))  # {"zh": ..., "en": ...}

A further language is a further file and its row in `LANGUAGES`.
"""

from __future__ import annotations

import json
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, TypedDict, cast

Language = Literal["zh", "en"]
LANGUAGES: Final[dict[Language, str]] = {"zh": "zh-CN", "en": "en"}
"""Language of an answer to the name of its file."""


class Both(TypedDict):
    """One text in both languages."""

    zh: str
    en: str


class Texts:
    """The sentences of one package. They are read when the first one is said."""

    def __init__(self, package: str) -> None:
        self._package = package

    @cached_property
    def table(self) -> dict[Language, dict[str, str]]:
        """Language to key to sentence, in the form of `str.format`."""
        package = (
            import_module(self._package).__file__ or ""
        )  # importlib.resources takes a tenth of a command's start to import
        folder = Path(package).parent / "locales"
        return {
            language: json.loads(folder.joinpath(f"{name}.json").read_text(encoding="utf-8"))
            for language, name in LANGUAGES.items()
        }

    def __call__(self, key: str, **values: float | str | Both) -> Both:
        """A sentence with its values put in; a value in both languages is taken in the sentence's own."""
        said = {
            language: sentences[key].format(
                **{name: value[language] if isinstance(value, dict) else value for name, value in values.items()}
            )
            for language, sentences in self.table.items()
        }
        return cast("Both", said)

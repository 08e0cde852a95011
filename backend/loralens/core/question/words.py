"""A word of the recipe: one row says what it is called, what it takes, what it is by default, and what it means.

The rows stand in the recipe's dataclasses (`recipe.py`), as metadata of their fields. What reads, writes, lists or explains
words goes through the functions here, so that a row is all there is to add.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

from loralens.core.question.kinds import Kind, Place, mapping
from loralens.core.question.needs import Need


@dataclass(frozen=True, slots=True)
class Word:
    """One word: its flat name, where it stands in the nested form, and the rest of its row.

    `name` is what query strings, the command line and the planner call it; `group` the object that holds it in JSON (empty:
    the recipe itself) and `field` its name there. `common` words are the few that most questions change. `aliases` are other
    programs' names for it. `needs`: what must hold for it to mean something. `kept`: a search among plans for
    several GPUs takes this word of theirs as it is, and does not choose by it.
    """

    name: str
    group: str
    field: str
    kind: Kind
    default: Any  # as JSON
    help: str
    common: bool = False
    aliases: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    kept: bool = False

    @property
    def path(self) -> str:
        """`lora.rank`, `optimizer`."""
        return f"{self.group}.{self.field}" if self.group else self.field

    def to_dict(self) -> dict[str, object]:
        """The row as JSON, for programs that make a form of it; such a program has words of its own for `help`."""
        schema = self.kind.schema()
        row = {
            "name": self.name,
            "group": self.group or "recipe",
            "type": self.kind.form or self.kind.text,
            "nullable": self.kind.nullable,
            "default": self.default,
            "choices": list(self.kind.choices),
            "minimum": schema.get("minimum"),
            "maximum": schema.get("maximum"),
            "common": self.common,
        }
        only_where_said = {"field": self.field != self.name and self.field, "kept": self.kept}
        return row | {name: value for name, value in only_where_said.items() if value}


def word(
    default: Any,
    kind: Kind,
    help: str,  # as argparse, click and typer call it
    *,
    name: str = "",
    common: bool = False,
    aliases: tuple[str, ...] = (),
    needs: tuple[Need, ...] = (),
    kept: bool = False,
) -> Any:
    """A dataclass field that is a word. `name`: the flat name, where the field's own would be ambiguous."""
    row = Word(name, "", "", kind, kind.shown(default), help, common, aliases, needs, kept)
    return field(default=default, metadata={"word": row})


@cache
def words_of(cls: Any, group: str = "") -> tuple[Word, ...]:
    """The rows of a dataclass, in order; fields that are no words (groups) are left out."""
    rows = [(one.name, one.metadata["word"]) for one in fields(cls) if "word" in one.metadata]
    return tuple(replace(row, name=row.name or own, group=group, field=own) for own, row in rows)


def read_words(rows: tuple[Word, ...], entries: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one object, by field; what is missing, or null where null is no value of its own, has its default.

    Raises:
        InvalidInput: a value of the wrong type or out of range.
    """
    values = {}
    for row in rows:
        if row.field not in entries or (entries[row.field] is None and not row.kind.nullable):
            continue
        values[row.field] = row.kind.read(entries[row.field], Place(row.path, row.default, word=row.name))
    return values


def read_group(cls: Any, group: str, given: Any) -> dict[str, Any]:
    """The values of a group's object; unknown names are refused."""
    rows = words_of(cls, group)
    return read_words(rows, mapping(given, group, [row.field for row in rows], "recipe field"))


def shown(rows: tuple[Word, ...], value: Any) -> dict[str, object]:
    """A dataclass's words as JSON."""
    return {row.field: row.kind.shown(getattr(value, row.field)) for row in rows}


def left_open(rows: Iterable[Word], entries: Mapping[str, Any]) -> frozenset[str]:
    """Flat names of the words that a nested recipe does not say."""

    def is_open(row: Word) -> bool:
        holder = entries.get(row.group) if row.group else entries
        if isinstance(holder, str):  # by the word alone that the group is called by: `quantization: nf4`
            return row.name != row.group
        return holder is None or row.field not in holder or (holder[row.field] is None and not row.kind.nullable)

    return frozenset(row.name for row in rows if is_open(row))

"""What a trainer does where its user says nothing: one file of data per trainer, `trainers/NAME.json`.

A row names a word, the trainer's value, the **source**, and where it holds: `for` names conditions (`CONDITIONS`), `since`
and `before` versions of the trainer's `library` (the newest one unless the recipe's stack names another).
`lists_linears` is the source for a trainer that lists the linear layers itself (see `Preset`).

A preset fills only words that are left open. What it filled follows from the recipe alone, so that an answer's recipe,
sent back, gives the same answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question.objectives import STILL, WHOLE_LOGITS
from loralens.core.question.quantization import Quantization
from loralens.core.question.recipe import ALL_WORDS, NO_TRAINER, PACKING_WORDS, TRAINERS, Recipe
from loralens.core.question.versions import read_version, version
from loralens.core.question.words import Word

DATA: Final = Path(__file__).parent / "trainers"
WORDS: Final[Mapping[str, Word]] = {row.name: row for row in ALL_WORDS}


def _packed(method: str, recipe: Recipe) -> bool:
    return method != "full" and (method == "qlora" or recipe.quantization is not None)


def _redirected(_: str, recipe: Recipe) -> bool:
    """Distillation in tiles; on whole logits it is GKD's trainer, which calls the model itself."""
    return recipe.objective.type == "distillation" and (recipe.loss == "fused_head" or "loss" in recipe.left_open)


CONDITIONS: Final[Mapping[str, Callable[[str, Recipe], bool]]] = {
    "full": lambda method, _: method == "full",
    "adapter": lambda method, _: method != "full",
    "packed": _packed,
    "unpacked": lambda method, recipe: method != "full" and not _packed(method, recipe),
    "unpacked_base": lambda method, recipe: not _packed(method, recipe),
    "not_int8": lambda _, recipe: recipe.quantization is None or recipe.quantization.type != "int8",
    "not_flash": lambda _, recipe: recipe.attention != "flash",
    "pictured": lambda _, recipe: recipe.images > 0 or recipe.video_frames > 0,
    "ddp": lambda _, recipe: recipe.parallelism.strategy == "ddp",
    "still": lambda _, recipe: recipe.objective.type in STILL,
    "not_still": lambda _, recipe: recipe.objective.type not in STILL,
    "whole_logits": lambda _, recipe: recipe.objective.type in WHOLE_LOGITS,
    "not_whole_logits": lambda _, recipe: recipe.objective.type not in WHOLE_LOGITS,
    "redirected": _redirected,
    "not_redirected": lambda method, recipe: not _redirected(method, recipe),
    "not_ddp": lambda _, recipe: recipe.parallelism.strategy != "ddp",
}


@dataclass(frozen=True, slots=True)
class Default:
    """One row of a preset; see the module's docstring."""

    word: str
    value: Any
    source: str
    conditions: tuple[str, ...] = ()
    since: tuple[int, ...] = ()
    before: tuple[int, ...] = ()

    def holds(self, method: str, recipe: Recipe, library_version: tuple[int, ...]) -> bool:
        """Does the row mean this method, recipe and version?"""
        newer = not library_version or library_version >= self.since
        older = not self.before or bool(library_version and library_version < self.before)
        return newer and older and all(CONDITIONS[name](method, recipe) for name in self.conditions)


@dataclass(frozen=True, slots=True)
class Note:
    """A fact of a trainer that no word says. `uncounted`: it takes memory that no figure has."""

    says: str
    conditions: tuple[str, ...] = ()
    uncounted: bool = False


@dataclass(frozen=True, slots=True)
class Preset:
    """A trainer's defaults."""

    name: str
    title: str
    library: str
    version: str
    rows: tuple[Default, ...]
    notes: tuple[Note, ...]
    lists_linears: str = ""
    """The source, where `all-linear` is a list of names here, made by the modules' class; empty where PEFT resolves the word."""

    def titled(self, recipe: Recipe) -> str:
        """`TRL 1.16`, or with the version that the recipe's stack names."""
        asked = dict(recipe.stack).get(self.library)
        return f"{self.title} {asked or self.version}"

    def defaults(self, method: str, recipe: Recipe) -> Iterator[Default]:
        """The rows that hold here; at most one for each word."""
        known = version(recipe, self.library) if self.library in dict(recipe.stack) else ()
        return (row for row in self.rows if row.holds(method, recipe, known))


@cache
def preset(name: str) -> Preset:
    """The preset of a trainer.

    Raises:
        InvalidInput: there is no such trainer.
    """
    if name not in TRAINERS:
        raise InvalidInput(f"unknown trainer {name[:40]!r}", field="trainer", hint=f"one of {', '.join(TRAINERS)}")
    given = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    rows = tuple(
        Default(
            word=row["word"],
            value=row["value"],
            source=row["source"],
            conditions=tuple(row.get("for", ())),
            since=read_version(row.get("since", "")),
            before=read_version(row.get("before", "")),
        )
        for row in given["words"]
    )
    notes = tuple(
        Note(note["says"], tuple(note.get("for", ())), note.get("uncounted", False)) for note in given["notes"]
    )
    return Preset(name, given["title"], given["library"], given["version"], rows, notes, given.get("lists_linears", ""))


def packed_by(recipe: Recipe, method: str) -> Recipe:
    """The recipe with the packing that this method has: none with `full`, and one that nobody named is for `qlora`, which packs by itself."""
    packing, unnamed = recipe.quantization, recipe.unnamed_packing
    if packing is None or (method != "full" and not unnamed):
        return recipe
    if method == "qlora":
        return recipe if recipe.trainer != NO_TRAINER else replace(recipe, left_open=frozenset())
    return replace(
        recipe,
        quantization=None,
        idle_packing=replace(packing, type="") if unnamed else packing,
        idle_words=PACKING_WORDS - recipe.left_open if unnamed else frozenset(),
    )


def as_trained(recipe: Recipe, method: str, *, leave: frozenset[str] = frozenset()) -> Recipe:
    """The recipe with the words that were left open filled as its trainer has them for this method.

    `leave`: words that stay open all the same, as the model cannot take the trainer's value.
    """
    if recipe.trainer == NO_TRAINER or not recipe.left_open:
        return recipe
    filled = recipe
    for row in preset(recipe.trainer).defaults(method, recipe):
        if row.word in recipe.left_open - leave:
            filled = _with(filled, row)
    if "alpha" in recipe.left_open and all(
        row.word != "alpha" for row in preset(recipe.trainer).defaults(method, recipe)
    ):
        filled = replace(filled, lora=replace(filled.lora, alpha=2 * filled.lora.rank))
    return replace(filled, left_open=frozenset())


def _with(recipe: Recipe, row: Default) -> Recipe:
    if row.word == "stack":
        known = dict(recipe.stack)
        return replace(recipe, stack=tuple(sorted({**row.value, **known}.items())))
    if WORDS[row.word].group == "quantization" and recipe.quantization is None:
        recipe = replace(recipe, quantization=Quantization())
    return recipe.with_(row.word, row.value)


def said_of_trainer(recipe: Recipe, method: str) -> list[str]:
    """What an answer says of its trainer: which words stand as it has them, which do not, and what no word says."""
    if recipe.trainer == NO_TRAINER:
        return []
    found = preset(recipe.trainer)
    title = found.titled(recipe)
    alike: list[str] = []
    unlike: list[str] = []
    for row in found.defaults(method, recipe):
        now = _now(recipe, row.word)
        same = row.value.items() <= now.items() if row.word == "stack" else now == row.value
        (alike if same else unlike).append(f"{row.word}={_text(now)}")
    said = [f"as {title} has it by default: {', '.join(alike)}"] if alike else []
    said += [f"not as {title} has it by default: {', '.join(unlike)}"] if unlike else []
    return said + [f"{title}: {note.says}" for note in _notes(recipe, method)]


def lists_linears(recipe: Recipe) -> str:
    """The trainer and its version, where it hands PEFT the names of the linear layers for `all-linear`; empty elsewhere."""
    if recipe.trainer == NO_TRAINER or not preset(recipe.trainer).lists_linears:
        return ""
    return preset(recipe.trainer).titled(recipe)


def uncounted(recipe: Recipe, method: str) -> bool:
    """Does the trainer take memory here that no figure has?"""
    return any(note.uncounted for note in _notes(recipe, method))


def _notes(recipe: Recipe, method: str) -> list[Note]:
    if recipe.trainer == NO_TRAINER:
        return []
    notes = preset(recipe.trainer).notes
    return [note for note in notes if all(CONDITIONS[name](method, recipe) for name in note.conditions)]


def _now(recipe: Recipe, name: str) -> Any:
    if name == "stack":
        return dict(recipe.stack)
    return recipe.get(name)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "+".join(f"{name} {text}" for name, text in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).lower()

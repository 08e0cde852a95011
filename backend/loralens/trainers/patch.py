"""The smallest change that makes a file's training fit, as a patch in its own words; comments stay as they are."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Any

import yaml

from loralens.core.answer.trainer import trained
from loralens.core.errors import LoraLensError
from loralens.planner.question import Question
from loralens.trainers.files import FileSetting, SourceFile, TextPlace
from loralens.trainers.reader import read, recipe_of
from loralens.trainers.reading import Reading
from loralens.trainers.writing import WRITERS, render

if TYPE_CHECKING:
    from loralens.planner.shapes import AdvisedChange
    from loralens.trainers.shapes import CheckedChange, FileChange


BY_HAND = "this file is changed by hand: a {kind} of {trainer} is not written"

LIGER_AS_ONE = ("llama-factory", "ms-swift")
"""One key switches Liger's kernels and its loss on together."""


def changed_file(r: Reading, question: Question, path: list[AdvisedChange] | None) -> CheckedChange | None:
    """The changes of a path with the text that makes them; None where nothing has to be changed, or nothing helps."""
    if not path:
        return None
    after = question
    for change in path:
        after = after.with_(change["field"], change["to"])
    if after.recipe.loss == "fused" and r.table.name in LIGER_AS_ONE and after.recipe.fused_kernels == "none":
        after = after.with_("fused_kernels", True)
    result: CheckedChange = {"changes": [], "diff": None, "text": None, "problem": None}
    try:
        keys = _keys(r, question, after)
    except LoraLensError as error:
        keys, result["problem"] = {}, error.message
    result["changes"] = _named(r, path, keys)
    if r.table.name not in WRITERS or r.source.kind not in ("yaml", "shell"):
        result["problem"] = BY_HAND.format(kind=r.source.kind, trainer=r.table.trainer)
        return result
    text = edited(r.source, keys)
    if text is None or not _reads_back(r, text, after):
        result["problem"] = "these keys are changed by hand: the file says them in a form that is not rewritten"
        return result
    lines = r.source.text.splitlines(keepends=True), text.splitlines(keepends=True)
    result["diff"] = "".join(difflib.unified_diff(*lines, f"a/{r.source.name}", f"b/{r.source.name}", n=1))
    result["text"] = text
    return result


def _keys(r: Reading, before: Question, after: Question) -> dict[str, Any]:
    """The keys that a writer says differently of the two questions."""
    if r.table.name not in WRITERS:
        return {}
    write, model = WRITERS[r.table.name], str(r.model)
    old, new = (write(model, q.method, q.estimate().recipe) for q in (before, after))
    changed = {key: value for key, value in new.items() if key not in old or old[key] != value}
    changed |= {key: False if old[key] is True else None for key in old if key not in new}
    if not _packed_in_file(r):
        return changed
    rows = {"axolotl": ("micro_batch_size", "sequence_len"), "trl": ("per_device_train_batch_size", "max_length"),
            "ms-swift": ("per_device_train_batch_size", "max_length")}.get(r.table.name, ())  # fmt: skip
    # the file's batch and length are one row of their product: both are said anew
    return changed | ({key: new[key] for key in rows} if any(key in changed for key in rows) else {})


def _packed_in_file(r: Reading) -> bool:
    return len(r.because.get("sequence_length", ())) > 1


def _named(r: Reading, path: list[AdvisedChange], keys: dict[str, Any]) -> list[FileChange]:
    costs = ", ".join(dict.fromkeys(change["cost"] for change in path))
    if not keys:
        return [
            {
                "word": one["field"],
                "key": _own(r, one["field"]),
                "from": one["from"],
                "to": one["to"],
                "cost": one["cost"],
            }
            for one in path
        ]
    by_word = ", ".join(change["field"] for change in path)
    return [
        {
            "word": by_word,
            "key": key,
            "from": None if (s := r.setting(key)) is None else s.value,
            "to": value,
            "cost": costs,
        }
        for key, value in keys.items()
    ]


def _own(r: Reading, word: str) -> str:
    settings = r.because.get(word, ())
    return settings[0].key if settings else word


def _reads_back(r: Reading, text: str, after: Question) -> bool:
    """Does the changed file mean what was to be reached?"""
    files = {name: one.text for name, one in r.files.items()} | {r.source.name: text}
    body: dict[str, Any] = {"files": files, "stack": r.stack} | ({"gpus": r.gpus} if r.gpus else {})
    try:
        again = read(body)
        recipe = after.model.packed(trained(after.model, after.method, recipe_of(again)), (after.method,))
        found = Question(after.model, after.method, recipe).estimate()
    except LoraLensError:
        return False
    return again.method == after.method and found.recipe == after.estimate().recipe


def edited(source: SourceFile, keys: dict[str, Any]) -> str | None:
    """The text with these keys set; None where one stands in a form that is not rewritten."""
    lines = source.text.split("\n")
    edits: list[tuple[TextPlace, str]] = []
    added: dict[str, Any] = {}
    for key, value in keys.items():
        found = source.settings.get(key)
        if found is None:
            added[key] = value
        elif found.place is None or (source.kind == "yaml" and isinstance(found.value, (list, dict))):
            if source.kind != "yaml" or found.value is not None or not found.line:
                return None
            edits.append((_after_colon(lines, found), f" {_scalar(value)}"))
        else:
            edits.append((found.place, _scalar(value) if source.kind == "yaml" else _argument(value)))
    for place, text in sorted(edits, key=lambda one: (-one[0].line, -one[0].column)):
        first, last = lines[place.line], lines[place.end_line]
        lines[place.line : place.end_line + 1] = [first[: place.column] + text + last[place.end_column :]]
    return _with_added(source, "\n".join(lines), added)


def _after_colon(lines: list[str], found: FileSetting) -> TextPlace:
    line = found.line - 1
    column = lines[line].index(":") + 1
    return TextPlace(line, column, line, column)


def _with_added(source: SourceFile, text: str, added: dict[str, Any]) -> str | None:
    added = {key: value for key, value in added.items() if value is not None}
    if not added:
        return text
    if source.kind == "shell":
        if source.first is None:
            return None
        lines = text.split("\n")
        nested: dict[str, Any] = {}
        for key, value in added.items():
            first, _, rest = key.partition(".")
            nested = nested | {first: nested.get(first, {}) | {rest: value}} if rest else nested | {first: value}
        arguments = "".join(f"--{key} {_argument(value)} \\\n{source.indent}" for key, value in nested.items())
        line = lines[source.first.line]
        lines[source.first.line] = line[: source.first.column] + arguments + line[source.first.column :]
        return "\n".join(lines)
    if any(key.split(".")[0] in source.whole for key in added if "." in key):
        return None  # into an object that the file has already
    return f"{text.rstrip()}\n{render(added)}"


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(one) for one in value) + "]"
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("...").strip()


def _argument(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, dict):
        return f"'{json.dumps(value)}'"
    return str(value).lower() if isinstance(value, bool) else str(value)

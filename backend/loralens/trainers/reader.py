"""Files to words: the training file is found among them, read by its trainer's rules, and every key is accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loralens.core.errors import InvalidInput
from loralens.core.question.flat import nested
from loralens.core.question.recipe import Recipe
from loralens.trainers.reading import WORDS, Reading
from loralens.trainers.recognise import READERS, read_files, recognise


def read(body: Mapping[str, Any]) -> Reading:
    """The files as words; see `check_answer` for what it raises."""
    files = read_files(body.get("files"))
    found = recognise({name: one for name, one in files.items() if not is_config(one.whole)})
    gpus = body.get("gpus")
    if gpus is not None and (isinstance(gpus, bool) or not isinstance(gpus, int) or not 1 <= gpus <= 65_536):
        raise InvalidInput("gpus must be a whole number from 1 to 65536", field="gpus")
    given = body.get("stack")
    stack = Recipe.from_mapping({"stack": {} if given is None else given}).stack
    beside = {name: one for name, one in files.items() if one is not found.source}
    r = Reading(found.table, found.source, beside, dict(stack), gpus)
    READERS[found.table.name](r)
    r.classify()
    return r


def is_config(whole: Mapping[str, Any]) -> bool:
    """A model's config.json among the files."""
    return "model_type" in whole and ("architectures" in whole or "hidden_size" in whole or "text_config" in whole)


def recipe_of(r: Reading) -> Recipe:
    """The words as a recipe, with the trainer's defaults in what is left open."""
    said = nested({name: value for name, value in r.words.items() if WORDS[name].kind.flat})
    stack = {"stack": r.stack} if r.stack else {}  # left open, the trainer fills it: its own model code may be in it
    return Recipe.from_mapping({**said, "trainer": r.table.trainer, **stack})

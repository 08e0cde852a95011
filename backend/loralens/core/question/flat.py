"""The flat form of a recipe, as query strings and the command line have it (`rank=8`), and the nested form of JSON bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loralens.core.question.kinds import unknown
from loralens.core.question.recipe import WORD


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn flat names (`rank=8`, `quantization=nf4`, `gpus=2`) into the nested recipe.

    Values may be text: numbers, booleans, `none` and comma lists are understood.

    Raises:
        InvalidInput: a name that no recipe has.
    """
    result: dict[str, Any] = {}
    for name, value in flat.items():
        row = WORD.get(name)
        if row is None:
            raise unknown(name, WORD)
        if isinstance(value, str):
            value = row.kind.from_text(value)
        if not row.group:
            result[row.field] = value
        elif name == "quantization" and value is None:
            result["quantization"] = None
        else:
            group = result.setdefault(row.group, {})
            if group is not None:
                group[row.field] = value
    return result


def merged_recipe(words: Mapping[str, Any]) -> dict[str, Any]:
    """Recipe words that may be nested or flat, as one nested recipe."""
    plain = {name: value for name, value in words.items() if name in WORD and not isinstance(value, Mapping)}
    result = nested(plain)
    if len(plain) == len(words):
        return result
    rest = {name: value for name, value in words.items() if name not in plain}
    for name, value in rest.items():
        if isinstance(value, Mapping) and isinstance(result.get(name), dict):
            result[name] = {**result[name], **value}
        else:
            result[name] = value
    return result

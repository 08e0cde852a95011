"""The recipe that was judged, as the options that ask for it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loralens.core.question.recipe import WORD, WORDS

ALWAYS = ("micro_batch_size", "sequence_length", "gradient_checkpointing")
ADAPTER = ("rank", "target_modules")


def options(recipe: Mapping[str, Any], method: str | None = None) -> list[str]:
    """Every word of the recipe that is not its default, and the few without which no verdict can be read.

    >>> options({"micro_batch_size": 2, "gradient_checkpointing": False, "lora": {"rank": 16}, "quantization": None})
    ['--micro-batch-size 2', '--no-gradient-checkpointing', '--rank 16']
    """
    rank = _value(recipe, "rank")[1]
    shown = [] if method is None else [f"--method {method}"]
    wanted = ALWAYS + (ADAPTER if method != "full" else ())
    for word in WORDS:
        there, value = _value(recipe, word.name)
        usual = 2 * rank if word.name == "alpha" and rank is not None else word.default
        if there and value is not None and (word.name in wanted or value != usual):
            shown.append(option(word.name, value))
    return shown


def option(name: str, value: Any) -> str:
    """One word as it is typed.

    >>> option("gradient_checkpointing", True), option("target_modules", ["q_proj", "v_proj"])
    ('--gradient-checkpointing', '--target-modules q_proj,v_proj')
    >>> option("image_size", [448, 672])
    '--image-size 448x672'
    """
    flag = "--" + name.replace("_", "-")
    kinds = {word.name: word.kind.text for word in WORDS}
    if isinstance(value, bool) and kinds.get(name) == "boolean":
        return flag if value else f"--no-{flag[2:]}"
    if isinstance(value, bool):
        value = str(value).lower()
    mark = "x" if name in WORD and WORD[name].kind.form == "extent" else ","
    text = mark.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return f"{flag} '{text}'" if any(symbol in text for symbol in "*()[]|\\^$+?") else f"{flag} {text}"


def _value(recipe: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Whether the nested recipe says a flat word, and its value."""
    row = WORD[name]
    holder = (recipe.get(row.group) or {}) if row.group else recipe
    return row.field in holder, holder.get(row.field)

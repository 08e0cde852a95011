"""Other ways to say an objective, turned into the recipe's own words before they are read.

A teacher and a rollout may stand inside of the objective; a loss that holds the same tensors as another objective's goes by that
one's name; a head and its labels may be said as an objective of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loralens.core.errors import InvalidInput

MEANT: Final = {"ipo": "dpo", "dapo": "grpo", "gkd": "distillation"}
HEADS: Final = {"classification": "sequence_classification", "token_classification": "token_classification"}
LOSSES: Final = {"head": "full", "tiled": "fused_head"}
"""The head's own loss, which is the full one on few labels, and TRL's head in tiles."""
BESIDE: Final = ("teacher", "value", "reward_model")
"""Groups of words about a model beside the one that learns."""
WRAPPED: Final = ("transformers", "sentence-transformers", "trl")
"""Loops that hand the model to accelerate (a stack's `trainer`)."""


def said_plainly(given: Any) -> Any:
    """A nested recipe in its own words; anything that is no object is left to the reader.

    Raises:
        InvalidInput: prompt and completion do not make up the row.
    """
    if not isinstance(given, Mapping):
        return given
    words = dict(given)
    loss = words.get("loss")
    if isinstance(loss, str):
        words["loss"] = LOSSES.get(loss, loss)
    stack = words.get("stack")
    if stack is not None and isinstance(stack, Mapping) and stack.get("trainer") in WRAPPED:
        words["stack"] = {"accelerate": "1.15", **{name: value for name, value in stack.items() if name != "trainer"}}
    objective = words.get("objective")
    if isinstance(objective, str) and (objective in MEANT or objective in HEADS):
        objective = {"type": objective}
    if objective is not None and isinstance(objective, Mapping):
        _hoist(words, dict(objective))
    return words


def _hoist(words: dict[str, Any], objective: dict[str, Any]) -> None:
    named = objective.get("type")
    if isinstance(named, str):
        objective["type"] = MEANT.get(named, named)
        if named in HEADS:
            objective["type"] = "sft"
            words["head"] = HEADS[named]
    labels = objective.pop("labels", None)
    if labels is not None and named != "reward":
        words["num_labels"] = labels
    if objective.get("reference") == "none":
        del objective["reference"]
    if (counted := objective.pop("completion_length", None)) is not None:
        words["labelled_tokens"] = counted
    for group in (*BESIDE, "rollout"):
        if group in objective:
            words[group] = objective.pop(group)
    if words.get("value") == "same":
        del words["value"]
    for group in BESIDE:
        other = words.get(group)
        if isinstance(other, Mapping) and "config" in other:
            words[group] = {"model": other["config"], **{key: other[key] for key in other if key != "config"}}
    rollout = words.get("rollout")
    if isinstance(rollout, Mapping):
        words["rollout"] = _without_lengths(words, dict(rollout))
    words["objective"] = objective


def _without_lengths(words: dict[str, Any], rollout: dict[str, Any]) -> dict[str, Any]:
    """A rollout's lengths are those of the row: what is left of it before the completion is the prompt."""
    prompt, completion = rollout.pop("prompt_length", None), rollout.pop("completion_length", None)
    length = words.get("sequence_length")
    if prompt is not None and completion is not None and length is not None and prompt + completion != length:
        raise InvalidInput(
            f"prompt_length {prompt} and completion_length {completion} do not make up sequence_length {length}",
            field="objective.rollout.prompt_length",
            hint="leave prompt_length out: it is what the completion leaves of the row",
        )
    if completion is None and prompt is not None and length is not None:
        completion = length - prompt
    if completion is not None:
        words.setdefault("labelled_tokens", completion)
    return rollout

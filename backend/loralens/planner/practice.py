"""What most people mean when they say nothing: the words that `loralens fit` fills in, and never in silence.

Sources, read in November 2026: every linear layer in QLoRA (arXiv:2305.14314, section 4), Unsloth's and Axolotl's
examples; rank 16 in Unsloth's and PEFT's examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loralens.core.answer.trainer import refuses_all_linear
from loralens.core.errors import LoraLensError
from loralens.core.question.model import resolve
from loralens.core.question.presets import preset
from loralens.core.question.recipe import NO_TRAINER, TRAINERS
from loralens.core.question.traced import TracedPlans

METHOD: Final = "qlora"
NAMED: Final = ("gradient_checkpointing",)
"""Words whose default is practice already: said, not filled in."""
LORA: Final[Mapping[str, Any]] = {"rank": 16, "target_modules": "all-linear"}


def with_practice(body: Mapping[str, Any]) -> tuple[dict[str, object], list[str]]:
    """The body with what most people mean filled in where it says nothing, and the flat names that were not said.

    A model to which PEFT refuses adapters on every linear layer keeps PEFT's own targets, a traced one those of its plan. Where the recipe names a trainer,
    its defaults come first, and nothing that it says is filled in here.
    """
    filled: list[str] = []
    result = dict(body)
    if "method" not in body and "methods" not in body:
        result["method"] = _method(body)
        filled.append("method")
    recipe = dict(body.get("recipe") or {})
    trainer = recipe.get("trainer", NO_TRAINER)
    said = {row.word for row in preset(trainer).rows} if trainer in TRAINERS else set()
    filled.extend(name for name in NAMED if name not in recipe and name not in said)
    methods = body.get("methods") or [result.get("method")]
    if methods != ["full"]:
        lora = dict(recipe.get("lora") or {})
        for name, value in LORA.items():
            if name not in lora and name not in said and not (name == "target_modules" and _refuses_all(body)):
                lora[name] = value
                filled.append(name)
        recipe["lora"] = lora
    return result | {"recipe": recipe}, filled


def _method(body: Mapping[str, Any]) -> str:
    """QLoRA, or what a traced model has in its place."""
    traced = _traced(body)
    return METHOD if traced is None or METHOD in traced.methods else traced.methods[-1]


def _traced(body: Mapping[str, Any]) -> TracedPlans | None:
    try:
        return resolve(body.get("model"), body.get("config")).traced
    except LoraLensError:  # the question itself says what is wrong
        return None


def _refuses_all(body: Mapping[str, Any]) -> bool:
    try:
        return _traced(body) is not None or refuses_all_linear(resolve(body.get("model"), body.get("config")).config)
    except LoraLensError:
        return False

"""A recipe as its trainer runs it: the words that are left open, filled for one model and one method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loralens.core.architecture.registry import build
from loralens.core.errors import LoraLensError
from loralens.core.question.presets import as_trained, packed_by

if TYPE_CHECKING:
    from loralens.core.question.model import Model
    from loralens.core.question.recipe import Recipe


def trained(model: Model, method: str, recipe: Recipe) -> Recipe:
    """The recipe with the packing that the method has and its trainer's defaults.

    A model to which PEFT refuses adapters on every layer keeps PEFT's targets.
    """
    recipe = packed_by(recipe, method)
    if not recipe.left_open:
        return recipe
    open_all = "target_modules" in recipe.left_open and method != "full" and refuses_all_linear(model.config)
    return as_trained(recipe, method, leave=frozenset({"target_modules"}) if open_all else frozenset())


def refuses_all_linear(config: Mapping[str, Any]) -> bool:
    """Does PEFT refuse adapters on every linear layer of this model? False where the model itself is refused."""
    try:
        root = build(config)
    except LoraLensError:  # the question itself says what is wrong
        return False
    return bool(root.refused_targets or root.no_adapters or root.refuses_all_linear)

"""A model that does not learn beside one that does: a reference or a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.methods.base import hold_weights
from loralens.core.methods.lora import pack

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.recipe import Recipe


def hold_frozen(root: Root, recipe: Recipe) -> None:
    """Every weight frozen, held and packed as the recipe says; nothing is raised to float32."""
    hold_weights(root, recipe, trainable=False)
    if recipe.quantization is not None:
        pack(root, recipe, recipe.quantization)

"""Full fine-tuning: every weight trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.methods.base import Prepared, hold_weights, precision_text

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.recipe import Recipe


def prepare(root: Root, recipe: Recipe) -> Prepared:
    """Every parameter trains in the dtype in which it is held."""
    hold_weights(root, recipe, trainable=True)
    return Prepared(f"{precision_text(recipe)}, every weight trains", checkpointing=recipe.gradient_checkpointing)

"""Full fine-tuning: all weights are trained, or every weight of the last n layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.errors import InvalidInput
from loralens.core.methods.base import Prepared, for_each, hold_weights, parameters, precision_text

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.module import Module
    from loralens.core.question.recipe import Recipe


def prepare(root: Root, recipe: Recipe) -> Prepared:
    """Every parameter trains in the dtype in which it is held; with `trainable_layers` those of the last layers only."""
    if recipe.trainable_layers is None:
        hold_weights(root, recipe, trainable=True)
        if root.media is not None:
            for parameter in root.media.frozen(recipe):
                parameter.trainable = False
        return Prepared(
            f"{precision_text(recipe)}, all weights are trained", recipe, checkpointing=recipe.gradient_checkpointing
        )
    _train_last(root, recipe, recipe.trainable_layers)
    return Prepared(
        f"{precision_text(recipe)}, the last {recipe.trainable_layers} layers train",
        recipe,
        input_gradients=recipe.gradient_checkpointing,
        checkpointing=recipe.gradient_checkpointing,
    )


def _train_last(root: Root, recipe: Recipe, wanted: int) -> None:
    name, stack = root.stacks()[-1]
    first = len(stack) - wanted
    if first < 0:
        raise InvalidInput(
            f"trainable_layers is {wanted}, the model has {len(stack)} layers",
            field="trainable_layers",
            hint=f"try trainable_layers={len(stack)}",
        )

    def signature(full: str, module: Module) -> bool:
        inside = full.startswith(f"{name}.") and full.removeprefix(f"{name}.").split(".")[0].isdigit()
        return inside and int(full.removeprefix(f"{name}.").split(".")[0]) >= first

    chosen: set[int] = set()

    def apply(full: str, module: Module, trains: bool) -> None:
        if trains:
            chosen.update(id(parameter) for _, parameter in module.own_parameters())

    for_each(root, signature, apply)
    hold_weights(root, recipe, trainable=False)
    for _, parameter in parameters(root):
        parameter.trainable = id(parameter) in chosen

"""LoRA: the base is frozen, low-rank adapters on chosen linear layers train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.module import Linear, Module
from loralens.core.errors import InvalidInput
from loralens.core.lora import LoraAdapter, selector
from loralens.core.methods.base import SHORT, Prepared, for_each, hold_weights, precision_text

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.recipe import Recipe


def prepare(root: Root, recipe: Recipe) -> Prepared:
    """Freeze the base and inject adapters."""
    assumptions = inject(root, recipe)
    hold_weights(root, recipe, trainable=False)
    weights, _, cast = precision_text(recipe).partition(", ")
    return Prepared(
        f"{weights}, {SHORT[recipe.lora.adapter_dtype]} adapters, {cast}",
        assumptions,
        input_gradients=recipe.gradient_checkpointing,
        checkpointing=recipe.gradient_checkpointing,
    )


def inject(root: Root, recipe: Recipe) -> list[str]:
    """Put an adapter on every target; returns the assumptions made.

    Raises:
        InvalidInput: no module matches `target_modules`.
    """
    lora = recipe.lora
    wanted = selector(root, lora)
    found: list[str] = []
    names: dict[str, None] = {}

    def signature(name: str, module: Module) -> bool:
        if isinstance(module, Linear):
            names[name.rsplit(".", 1)[-1]] = None
        if wanted(name, module):
            found.append(name)
            return True
        return False

    def apply(name: str, module: Module, chosen: object) -> None:
        if chosen and isinstance(module, Linear):
            adapter = LoraAdapter.on(module, name, lora)
            module.adapter = adapter

    for_each(root, signature, apply)
    if not found:
        raise InvalidInput(
            f"no linear layer of this model matches target_modules {lora.target_modules!r}",
            field="lora.target_modules",
            hint=f"this model has: {', '.join(names)}; or all-linear",
        )
    if not lora.target_modules_given and tuple(root.default_targets) != ("q_proj", "v_proj"):
        return [f"target modules not given: {', '.join(root.default_targets)} (PEFT's default for this family)"]
    return []

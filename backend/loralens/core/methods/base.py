"""What methods share: a rule applied to every module; layers to which it does the same stay one object."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loralens.core.architecture.module import Module, Stack

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.parameter import Parameter

SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(slots=True)
class Prepared:
    """What a method decided: a one-line regime, assumptions, and whether embeddings must pass a gradient on."""

    regime: str
    recipe: Recipe  # with everything named that the method chose itself
    assumptions: list[str] = field(default_factory=list)
    input_gradients: bool = False
    checkpointing: bool = False


def outside_stacks(module: Module, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """Every module that is not inside a stack of layers."""
    yield prefix, module
    for name, child in module.children():
        full = f"{prefix}.{name}" if prefix else name
        if isinstance(child, Stack):
            yield full, child
        else:
            yield from outside_stacks(child, full)


def for_each(
    root: Root,
    signature: Callable[[str, Module], Hashable],
    apply: Callable[[str, Module, Any], None],
    *,
    everywhere: bool = False,
) -> None:
    """Apply a rule to every module of a model; `signature` decides, `apply` does. `everywhere`: see `Stack.specialise`."""
    for name, module in list(outside_stacks(root)):
        if isinstance(module, Stack):
            module.specialise(name, signature, apply, everywhere=everywhere)
        else:
            apply(name, module, signature(name, module))


def parameters(root: Root) -> Iterator[tuple[str, Parameter]]:
    """Every distinct parameter object (shared layers once), adapters included, by one of its names."""
    seen: set[int] = set()
    for name, module, _ in root.distinct():
        for own, parameter in module.owned():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{name}.{own}" if name else own, parameter


def hold_weights(root: Root, recipe: Recipe, *, trainable: bool) -> None:
    """Set every base parameter's dtype and whether it trains."""
    for name, parameter in parameters(root):
        if parameter.role == "base":
            whole = recipe.weights_dtype == "float16" and keeps_float32(root, name)
            parameter.dtype = parameter.held_in or ("float32" if whole else recipe.weights_dtype)
            parameter.trainable = trainable and not parameter.frozen


def keeps_float32(root: Root, name: str) -> bool:
    """Is this a module, or in one, that transformers does not hold in float16 and does not pack? Named by a part of its path or several.

    Source: transformers 5.23 modeling_utils.py `_get_dtype_plan`, quantizers/base.py `get_modules_to_not_convert`.
    """
    return any(f".{whole}." in f".{name}." for whole in root.float32_modules)


def precision_text(recipe: Recipe) -> str:
    """The recipe's precision in words."""
    cast = f"{SHORT[recipe.autocast]} autocast" if recipe.autocast else "no autocast"
    return f"{SHORT[recipe.weights_dtype]} weights, {cast}"

"""The parameters of a model in a step: each once for every place of its own, and those that an optimizer updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.step.optimizer import Trained

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.architecture.module import Module
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.parameter import Parameter


@dataclass(frozen=True, slots=True)
class Held:
    """A parameter and in how many places of its own it stands (layers of a kind share one object)."""

    parameter: Parameter
    count: int


def placed_parameters(root: Root) -> list[Parameter]:
    """Every parameter once for each place of its own, in the model's order; tied ones once."""
    return [parameter for _, _, parameter in named_parameters(root)]


def named_parameters(root: Root) -> list[tuple[str, Module, Parameter]]:
    """`placed_parameters` with the module that has each, under its full name."""
    return [found[:3] for found in _untied((name, module, 1) for name, module in root.walk())]


def held_parameters(root: Root) -> list[Held]:
    """Every parameter with its multiplicity; tied ones once."""
    counts: dict[int, int] = {}
    found: dict[int, Parameter] = {}
    for _, _, parameter, places in _untied(root.distinct()):
        found[id(parameter)] = parameter
        counts[id(parameter)] = counts.get(id(parameter), 0) + places
    return [Held(parameter, counts[key]) for key, parameter in found.items()]


def _untied(modules: Iterable[tuple[str, Module, int]]) -> Iterator[tuple[str, Module, Parameter, int]]:
    """The parameters of modules with their number of places, without the second name of a tied one."""
    found: set[int] = set()
    for name, module, places in modules:
        in_stack = any(part.isdigit() for part in name.split("."))
        for own, parameter in module.owned():
            if id(parameter) in found and not (in_stack or own.isdigit()):
                continue  # tied: the same weight under a second name
            found.add(id(parameter))
            yield name, module, parameter, places


def trained_tensors(held: list[Held], recipe: Recipe) -> list[Trained]:
    """The trainable tensors as the optimizer sees them."""
    rank = recipe.lora.rank
    return [
        Trained(p.numel, p.shape, p.dtype, item.count, p.numel.at(1, 1, rank), p.shared_by)
        for item in held
        if (p := item.parameter).trainable and not p.idle
    ]

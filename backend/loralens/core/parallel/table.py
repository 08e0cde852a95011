"""The strategies by the names that a recipe's `strategy` has for them; a new one is a class and a row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.parallel.ddp import Ddp
from loralens.core.parallel.deepspeed import Zero1, Zero2, Zero3
from loralens.core.parallel.fsdp import Fsdp
from loralens.core.parallel.single import Single
from loralens.core.parallel.strategy import Setting, Strategy

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe

STRATEGIES: Final[dict[str, type[Strategy]]] = {
    "none": Single,
    "ddp": Ddp,
    "zero1": Zero1,
    "zero2": Zero2,
    "zero3": Zero3,
    "fsdp": Fsdp,
}


def strategy_of(recipe: Recipe, *, adapters: bool = False) -> Strategy:
    """The recipe's strategy; `adapters`: adapters train, the base is frozen."""
    return STRATEGIES[recipe.parallelism.strategy].chosen(Setting(recipe, adapters))

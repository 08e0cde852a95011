"""The strategies by the names that the word `strategy` has for them; a new one is a class, its place here and its name there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.parallel.ddp import Ddp
from loralens.core.parallel.deepspeed import Zero1, Zero2, Zero3
from loralens.core.parallel.fsdp import Fsdp
from loralens.core.parallel.fsdp2 import Fsdp2
from loralens.core.parallel.megatron import Megatron
from loralens.core.parallel.single import Single
from loralens.core.parallel.strategy import Setting, Strategy
from loralens.core.question.parallelism import STRATEGIES as NAMES

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe

# in the order of the word's names
_CLASSES: Final[tuple[type[Strategy], ...]] = (Single, Ddp, Zero1, Zero2, Zero3, Fsdp, Fsdp2, Megatron)
STRATEGIES: Final[dict[str, type[Strategy]]] = dict(zip(NAMES, _CLASSES, strict=True))


def strategy_of(recipe: Recipe, *, adapters: bool = False) -> Strategy:
    """The recipe's strategy; `adapters`: adapters train, the base is frozen."""
    return STRATEGIES[recipe.parallelism.strategy].chosen(Setting(recipe, adapters))

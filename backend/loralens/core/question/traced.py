"""The plans that a config.json may carry: what `loralens trace --plan` adds to it under one key.

Every place that takes a config then takes the traced model: command line, API, page, a folder of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question.quantization import Quantization
from loralens.core.question.recipe import WORDS

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe

TRACED: Final = "traced_plan"
FORMAT: Final = 1
FREE: Final = frozenset({"micro_batch_size", "sequence_length", "rank", "alpha", "host_memory"})
"""Words that a traced plan leaves open; the first three within its ranges."""


@dataclass(frozen=True, slots=True)
class TracedPlans:
    """The traced plans of a model, one or more for each method, as they stand in the file.

    Attributes:
        source: the libraries that ran, with their versions.
        parameters: the model's own, without adapters.
    """

    source: str
    parameters: int
    plans: tuple[Mapping[str, Any], ...]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that were traced, in the file's order."""
        return tuple(dict.fromkeys(str(plan["method"]) for plan in self.plans))


def traced_plans(config: Mapping[str, Any]) -> TracedPlans | None:
    """What a config carries; None for a plain one.

    Raises:
        InvalidInput: it is not what `loralens trace --plan` writes.
    """
    if TRACED not in config:
        return None
    given = config[TRACED]
    try:
        plans = tuple(given["plans"])
        known = given["format"] == FORMAT and len(plans) > 0
        known = known and all(isinstance(plan["method"], str) and isinstance(plan["recipe"], Mapping) for plan in plans)
        source, parameters = given["source"], given["parameters"]
        known = known and isinstance(source, str) and isinstance(parameters, int)
    except (TypeError, KeyError):
        known = False
    if not known:
        raise malformed(f"it must be an object of format {FORMAT} with plans")
    return TracedPlans(source[:200], parameters, plans)


def malformed(why: str) -> InvalidInput:
    """The error of a file that was not written by `loralens trace --plan`, or was changed since."""
    return InvalidInput(
        f"config.{TRACED}: {why}", field=f"config.{TRACED}", hint="loralens trace MODEL --plan FILE writes such a file"
    )


def differing(asked: Recipe, traced: Recipe, method: str, *, targets_open: bool = False) -> dict[str, tuple[Any, Any]]:
    """Words of a question that a plan was not traced with: asked and traced values by name.

    `targets_open`: were the target modules of the trace PEFT's choice?
    """
    if method == "qlora":
        asked, traced = _packed(asked), _packed(traced)
    found = {}
    for word in WORDS:
        pair = asked.get(word.name), traced.get(word.name)
        if word.name == "target_modules" and pair[0] is None and targets_open:
            continue  # both left it to PEFT
        counts = all(need.holds(method, recipe) for need in word.needs for recipe in (asked, traced))
        if counts and word.name not in FREE and pair[0] != pair[1]:
            found[word.name] = pair
    return found


def _packed(recipe: Recipe) -> Recipe:
    return recipe if recipe.quantization is not None else recipe.with_("quantization", Quantization().type)

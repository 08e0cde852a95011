"""How much is trained: tokens, or samples of the objective, or prompts for which so many completions are generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.objectives.rollouts import rows_of
from loralens.core.objectives.table import objective_of
from loralens.core.question.objectives import GROUPED

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.planner.question import Question

AMOUNTS: Final = ("tokens", "samples", "prompts", "generations")
MOST: Final = 10**15
GENERATIONS: Final = {"grpo": 8, "rloo": 2}
"""Completions of a prompt where nobody says: TRL 1.16.0 grpo_config.py and rloo_config.py, `num_generations`; PPO generates one."""

MOST_GENERATIONS: Final = 1_024
"""Of a group that is named as the way out."""


def is_asked(own: Mapping[str, Any]) -> bool:
    """Is an amount given?

    Raises:
        InvalidInput: generations without prompts.
    """
    if own.get("generations") is not None and own.get("prompts") is None:
        raise InvalidInput(
            "generations are completions of a prompt, and no prompts are given",
            field="generations",
            hint="try prompts=10000",
        )
    return any(own.get(name) is not None for name in AMOUNTS)


def tokens_of(question: Question, own: Mapping[str, Any]) -> int:
    """Tokens of the whole training, padding included.

    Raises:
        InvalidInput: two amounts are given, one is out of range, prompts without an objective that generates, or generations
            that do not divide what is generated at once.
    """
    given = [name for name in AMOUNTS[:3] if own.get(name) is not None]
    if len(given) > 1:
        raise InvalidInput(
            f"{' and '.join(given)} each say how much is trained: one is enough",
            field=given[1],
            hint=f"leave {given[1]} out",
        )
    if given == ["tokens"]:
        tokens: int = own["tokens"]
        return tokens
    objective, recipe = objective_of(question.recipe), question.recipe
    samples = _whole(own, given[0])
    if given == ["prompts"]:
        if not objective.generates:
            raise InvalidInput(
                f"prompts are for objectives that generate, and {recipe.objective.type} learns from samples as they are",
                field="prompts",
                hint="try samples=10000",
            )
        if own.get("generations") is None:
            samples *= GENERATIONS.get(recipe.objective.type, 1)
        else:
            samples *= _in_groups(_whole(own, "generations"), recipe)
    return samples * objective.rows * recipe.sequence_length


def _in_groups(generations: int, recipe: Recipe) -> int:
    """`generations`, if whole groups of so many completions are generated at once.

    **Source:** TRL 1.16.0 trainer/grpo_config.py and rloo_config.py, `__post_init__`: `generation_batch_size % num_generations`, and
    at least 2. verl draws prompts and repeats each (0.7.0 trainer/ppo/ray_trainer.py), so its groups are always whole.
    """
    together = rows_of(recipe) * recipe.parallelism.data_parallel
    kind = recipe.objective.type
    if kind not in GROUPED or recipe.trainer == "verl" or (generations > 1 and together % generations == 0):
        return generations
    allowed = [count for count in range(2, MOST_GENERATIONS + 1) if together % count == 0]
    nearest = min(allowed, key=lambda count: abs(count - generations), default=None)
    raise InvalidInput(
        f"{kind.upper()} generates {together:,} completions at once, of which groups of {generations:,} cannot be made: TRL takes "
        "generations of at least 2 that divide them",
        field="generations",
        hint="try generations=8 with micro_batch_size=8" if nearest is None else f"try generations={nearest}",
    )


def _whole(own: Mapping[str, Any], name: str) -> int:
    value = own[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise InvalidInput(f"{name} must be between 1 and 10^15, got {value!r:.40}", field=name, hint="try 10000")
    return value

"""How much is trained: tokens, or samples of the objective, or prompts for which so many completions are generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.objectives.table import objective_of

if TYPE_CHECKING:
    from loralens.planner.question import Question

AMOUNTS: Final = ("tokens", "samples", "prompts", "generations")
MOST: Final = 10**15
GENERATIONS: Final = {"grpo": 8, "rloo": 2}
"""Completions of a prompt where nobody says: TRL 1.16.0 grpo_config.py and rloo_config.py, `num_generations`; PPO generates one."""


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
        InvalidInput: two amounts are given, one is out of range, or prompts without an objective that generates.
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
        given_too = own.get("generations") is not None
        samples *= _whole(own, "generations") if given_too else GENERATIONS.get(recipe.objective.type, 1)
    return samples * objective.rows * recipe.sequence_length


def _whole(own: Mapping[str, Any], name: str) -> int:
    value = own[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise InvalidInput(f"{name} must be between 1 and 10^15, got {value!r:.40}", field=name, hint="try 10000")
    return value

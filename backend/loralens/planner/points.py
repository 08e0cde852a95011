"""The points of a sweep one by one, in Python's own integers: where NumPy is not there, as in a browser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from math import prod
from typing import Final

from loralens.core.answer.plan import plan_for
from loralens.core.answer.planned import CompiledPlan
from loralens.core.errors import InputTooLarge
from loralens.core.question.recipe import Recipe
from loralens.core.tape.size import VARIABLES
from loralens.planner.question import Question

MAX_POINTS: Final = 5_000
"""A point takes a quarter of a millisecond, and four times that compiled to WebAssembly."""


def setting_of(recipe: Recipe) -> dict[str, int]:
    """What a plan varies, as the recipe has it."""
    return {
        "micro_batch_size": recipe.micro_batch_size,
        "sequence_length": recipe.sequence_length,
        "rank": recipe.lora.rank,
    }


def at_setting(recipe: Recipe, batch: int, length: int, rank: int) -> Recipe:
    """The recipe at other values of what a plan varies."""
    return replace(recipe, micro_batch_size=batch, sequence_length=length, lora=replace(recipe.lora, rank=rank))


def peaks_one_by_one(question: Question, axes: Mapping[str, list[int]]) -> tuple[list[int], list[int]]:
    """Peak bytes and the phase of the peak for every point of the product of `axes`, in C order over the axes as given.

    Raises:
        InputTooLarge: more points than are computed in a sensible time.
    """
    count = prod(len(values) for values in axes.values())
    if count > MAX_POINTS:
        raise InputTooLarge(
            f"{count:,} points, at most {MAX_POINTS:,} are computed without NumPy",
            field="sweep",
            hint="use fewer values, or ask a server (./start.sh), which has NumPy",
        )
    recipe, base = question.recipe, setting_of(question.recipe)
    plans: list[CompiledPlan] = []
    sizes: list[int] = []
    phases: list[int] = []
    for values in product(*axes.values()):
        batch, length, rank = (dict(zip(axes, values, strict=True)).get(name, base[name]) for name in VARIABLES)
        plan = next((plan for plan in plans if plan.validity.covers(batch, length, rank)), None)
        if plan is None:
            plan = plan_for(question.model, question.method, at_setting(recipe, batch, length, rank))
            plans.append(plan)
        _, moment, size = plan.peaks(batch, length, rank)
        sizes.append(size)
        phases.append(plan.phases.index(moment.phase))
    return sizes, phases

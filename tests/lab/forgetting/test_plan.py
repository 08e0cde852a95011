from __future__ import annotations

from dataclasses import replace

import pytest

from loralens.lab.forgetting.plan import BUDGETS, plan_from_spec
from loralens.lab.forgetting.request import LARGEST_RANK


def test_budgets_are_the_announced_ones_and_their_widths_are_known_without_torch() -> None:
    assert {name: plan.seconds for name, plan in BUDGETS.items()} == {"quick": 60, "full": 600}
    assert {name: plan.preset.config.hidden_size for name, plan in BUDGETS.items()} == LARGEST_RANK


@pytest.mark.parametrize("budget", BUDGETS)
def test_each_budget_has_what_the_question_needs(budget: str) -> None:
    plan = BUDGETS[budget]
    assert len(plan.seeds) >= 3
    assert plan.sweep_seed not in plan.seeds
    assert {"full", "mixed", "linear", "lora-full-rank"} <= {arm.id for arm in plan.arms}
    loras = [arm for arm in plan.arms if arm.rank and not arm.train_rest]
    assert len({arm.rank for arm in loras}) >= 2
    assert len({arm.targets for arm in loras}) >= 2
    assert len({arm.family for arm in loras}) == len(loras), "each LoRA arm chooses a rate of its own"
    assert all(len(plan.rates_of(family)) >= 2 for family in plan.families())
    assert list(plan.evaluation_steps) == sorted(set(plan.evaluation_steps))
    assert {arm.rank for arm in plan.arms if arm.rank} <= set(plan.ranks)
    assert plan.ranks[0] == 0 and plan.ranks[-1] == LARGEST_RANK[budget]


def test_a_request_chooses_seeds_and_ranks() -> None:
    plan = plan_from_spec({"budget": "quick", "seed": 7, "seeds": 4, "ranks": [2, 16]})
    assert plan.seeds == (7, 8, 9, 10)
    assert {arm.rank for arm in plan.arms if arm.rank and not arm.train_rest} == {2, 16}
    assert plan.families()["lora"].rank == 2
    assert {2, 16} <= set(plan.ranks)
    assert plan_from_spec({}) == BUDGETS["quick"]


def test_digest_names_what_the_curves_depend_on() -> None:
    plan = BUDGETS["quick"]
    assert replace(plan, seconds=1, workers=7).digest("x") == plan.digest("x")
    assert replace(plan, seeds=(4, 5)).digest("x") != plan.digest("x")
    assert plan.digest("x") != plan.digest("y")

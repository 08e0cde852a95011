"""A client that evaluates the plan gets the numbers of /api/memory."""

from __future__ import annotations

from math import prod

import pytest

from loralens.api.shape import shape
from loralens.core.answer.plan_shapes import PlanAnswer


def value(plan, coefficients, variables):
    at = [variables[name] for name in plan["variables"]]
    return sum(
        coefficient * prod(variable**power for variable, power in zip(at, exponents, strict=True))
        for coefficient, exponents in zip(coefficients, plan["monomials"], strict=True)
    )


@pytest.mark.parametrize("model", ["7B", "mixtral-8x7b", "bert-base"])
def test_a_plan_is_what_the_schema_promises(client, model):
    shape(PlanAnswer).model_validate(client.get(f"/api/plan?model={model}").json(), strict=False)


@pytest.mark.parametrize(
    "variables",
    [
        {"micro_batch_size": 1, "sequence_length": 2048, "rank": 8},
        {"micro_batch_size": 3, "sequence_length": 777, "rank": 5},
        {"micro_batch_size": 16, "sequence_length": 4096, "rank": 256},
    ],
    ids=str,
)
def test_the_plan_gives_the_estimate(client, variables):
    query = "&".join(f"{name}={number}" for name, number in variables.items())
    exact = client.get(f"/api/memory?model=7B&{query}").json()["estimates"]
    plans = client.get("/api/plan?model=7B").json()["plans"]  # asked for at the default sizes
    for plan, estimate in zip(plans, exact, strict=True):
        assert plan["method"] == estimate["method"]
        assert value(plan, plan["parameters"]["trainable"], variables) == estimate["parameters"]["trainable"]
        peak = max(
            sum(value(plan, coefficients, variables) for coefficients in moment["bytes"]) for moment in plan["moments"]
        )
        assert peak == estimate["peak"]["allocated_bytes"]

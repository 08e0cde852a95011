"""Sentences say what the interval says, whichever way it points."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from loralens.lab.forgetting.sentences import findings
from loralens.lab.forgetting.uncertainty import spread

Events = list[dict[str, Any]]


def said(result: dict[str, Any], name: str) -> tuple[str, str]:
    sentence = next(f for f in findings(result) if f["id"] == name)
    return sentence["en"], sentence["zh"]


@pytest.fixture
def result(events: Events) -> dict[str, Any]:
    return copy.deepcopy(events[-1])


@pytest.mark.parametrize(
    ("values", "en", "zh"),
    [
        ([-0.5, -0.51, -0.49], "LoRA forgot less", "LoRA 遗忘更少"),
        ([0.5, 0.51, 0.49], "LoRA forgot more", "LoRA 遗忘更多"),
        ([0.5, -0.51, 0.1], "not settled", "尚无定论"),
    ],
)
def test_comparisons_follow_the_interval(result: dict[str, Any], values: list[float], en: str, zh: str) -> None:
    for comparison in result["summary"]["comparisons"]:
        comparison["forgetting_nats"] = spread(values)
        comparison["at_equal_learning"]["forgetting_nats"] = spread(values)
    for name in ("after_equal_steps", "at_equal_learning"):
        assert en in said(result, name)[0]
        assert zh in said(result, name)[1]


def test_full_fine_tuning_may_have_improved_the_old_text(result: dict[str, Any]) -> None:
    full = result["summary"]["arms"][0]
    full["forgetting_nats"] = spread([-0.3, -0.31, -0.29])
    assert "fall by 0.30" in said(result, "full_forgets")[0]
    assert "下降" in said(result, "full_forgets")[1]
    full["forgetting_nats"] = spread([-0.3, 0.31, 0.1])
    assert "not settled" in said(result, "full_forgets")[0]


def test_the_spread_is_in_the_sentence(result: dict[str, Any]) -> None:
    result["summary"]["arms"][0]["forgetting_nats"] = spread([1.0, 2.0, 3.0])
    english, chinese = said(result, "full_forgets")
    for part in ("+2.00", "−0.48 to 4.48", "3 seeds"):
        assert part in english
    assert "−0.48 到 4.48" in chinese and "3 个随机种子" in chinese


def test_what_cannot_be_compared_is_left_out(result: dict[str, Any]) -> None:
    result["summary"]["sweep_at_equal_learning"] = None
    for comparison in result["summary"]["comparisons"]:
        comparison["at_equal_learning"]["forgetting_nats"] = None
    assert not {"learning_rates", "at_equal_learning"} & {f["id"] for f in findings(result)}


def test_a_run_that_went_wrong_is_named(result: dict[str, Any]) -> None:
    for arm in result["summary"]["arms"]:  # what this small run has learned depends on the machine's arithmetic
        arm["learned_nats"] = spread([0.5, 0.51, 0.49])
    assert "unstable" not in {f["id"] for f in findings(result)}
    wrong = next(arm for arm in result["summary"]["arms"] if arm["arm"] == "lora-r4")
    wrong["learned_nats"] = spread([0.5, -0.5, 0.1])
    assert "lora-r4" in said(result, "unstable")[0] and "lora-r4" in said(result, "unstable")[1]


@pytest.mark.parametrize(
    ("linear", "en", "zh"),
    [(0.6, "The missing 40% is due to the frozen", "缺的 40% 来自被冻结"), (1.0, "Nothing is missing", "没有造成差距")],
)
def test_what_the_frozen_embeddings_cost_is_what_is_missing(
    result: dict[str, Any], linear: float, en: str, zh: str
) -> None:
    arms = {arm["arm"]: arm for arm in result["summary"]["arms"]}
    arms["full"]["learned_nats"] = spread([1.0, 1.0, 1.0])
    arms["linear"]["learned_nats"] = spread([linear] * 3)
    english, chinese = said(result, "frozen_embeddings")
    assert en in english and zh in chinese

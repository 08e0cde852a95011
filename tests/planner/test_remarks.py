"""A planner's answer says once what memory's says of the same words: what has no effect, and what is assumed of them."""

from __future__ import annotations

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.answer.overhead import ASSUMPTIONS
from loralens.core.answer.remarks import idle_sentences
from loralens.planner.fit import fit_answer
from loralens.planner.plans import plans_answer

ASKED = {
    "trainer": "trl", "max_grad_norm": 2.0, "loss": "fused_head", "labelled_tokens": 4096, "sequence_length": 2048,
    "parallelism": {"gpus": 8, "strategy": "zero3", "offload": "optimizer", "host_memory": 64, "machine_gpus": 16},
}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        {"model": "8B", "gpu": "rtx-4090", "method": "lora", "recipe": ASKED},
        {"model": "qwen2.5-0.5b", "gpu": "dgx-spark", "method": "qlora", "recipe": {"parallelism": {"tp": 1, "loss_parallel": False, "hpz_partition": 2}}},
        {"model": "qwen2.5-0.5b", "gpu": "24GB", "recipe": {"objective": {"type": "grpo"}, "rollout": {"engine": "vllm"}}},
    ],
)  # fmt: skip
def test_fit_says_all_that_memory_says_each_once(body):
    said = memory_answer(body)["estimates"][0]["assumptions"]
    answer = fit_answer(body)
    parts = [
        *answer["model"].get("read_as", []),
        *idle_sentences(answer["without_effect"]),
        *answer["remarks"],
        *ASSUMPTIONS,
    ]
    assert sorted(parts) == sorted(said)
    assert len(set(parts)) == len(parts)


def test_remarks_are_of_lengths_machines_and_the_trainer():
    text = "\n".join(fit_answer({"model": "8B", "gpu": "rtx-4090", "recipe": ASKED})["remarks"])
    for part in ("labelled_tokens 4,096 is above", "machine_gpus 16 is above gpus 8", "not as TRL", "of its 64.0 GiB"):
        assert part in text
    assert "without effect" not in text


PLANS = {"model": "qwen2.5-0.5b", "gpu": "h100-sxm", "gpus": 2}


def test_a_plan_search_says_what_changes_nothing_in_any_plan():
    answer = plans_answer(
        PLANS | {"recipe": {"max_grad_norm": 1.0, "labelled_tokens": 99, "parallelism": {"bucket_view": True}}}
    )
    idle = {name for row in answer["without_effect"] for name in row["words"]}
    assert {"max_grad_norm", "labelled_tokens"} <= idle
    of_ddp = any(row["recipe"]["parallelism"]["strategy"] == "ddp" for row in answer["plans"])
    assert ("bucket_view" in idle) != of_ddp  # it means something there


def test_a_plan_search_never_names_words_that_it_set_itself():
    assert plans_answer(PLANS)["without_effect"] == []


def test_a_plan_search_has_the_remarks_that_all_its_plans_have():
    recipe = {"loss": "fused_head", "labelled_tokens": 4096, "sequence_length": 2048, "trainer": "trl"}
    answer = plans_answer(PLANS | {"recipe": recipe})
    assert len(answer["plans"]) > 1
    assert any("labelled_tokens 4,096 is above" in remark for remark in answer["remarks"])
    assert any("TRL" in remark for remark in answer["remarks"])
    assert not set(answer["remarks"]) & set(answer["assumptions"])

"""How much is trained, in tokens, samples or prompts: one amount, the same training."""

from typing import Any

import pytest

from loralens.core.errors import InvalidInput
from loralens.planner.fit import fit_answer

GRPO: dict[str, Any] = {
    "model": "0.5B", "method": "lora", "gpu": "a100",
    "recipe": {"objective": "grpo", "rollout": {"engine": "vllm", "utilization": 0.4}, "micro_batch_size": 8,
               "gradient_accumulation_steps": 4, "sequence_length": 1024},
}  # fmt: skip
DPO: dict[str, Any] = {"model": "0.5B", "method": "lora", "gpu": "a100", "recipe": {"objective": "dpo"}}


def time(body: dict[str, Any], **amount: object) -> dict[str, Any]:
    return fit_answer({**body, **amount})["time"]  # type: ignore[return-value]


def test_prompts_are_completions_are_tokens() -> None:
    found = time(GRPO, prompts=1000)
    assert found["tokens"] == 1000 * 8 * 1024
    assert found["run"] == {"samples": 8000, "steps": 250, "iterations": 250}
    assert (
        time(GRPO, samples=8000) == found == time(GRPO, prompts=1000, generations=8) == time(GRPO, tokens=8000 * 1024)
    )
    assert time(GRPO, prompts=1000, generations=4)["run"]["samples"] == 4000
    seconds = found["iteration"]["seconds"]["expected"]
    assert found["gpu_hours"]["expected"] == pytest.approx(250 * seconds / 3600)


def test_pairs_have_two_rows() -> None:
    found = time(DPO, samples=100)
    assert found["tokens"] == 100 * 2 * 2048
    assert found["run"] == {"samples": 100, "steps": 100, "iterations": 100}


def test_cards_share_the_samples() -> None:
    shared = {**DPO, "recipe": {**DPO["recipe"], "parallelism": {"gpus": 4, "strategy": "ddp"}}}
    assert time(shared, samples=100)["run"] == {"samples": 100, "steps": 25, "iterations": 25}


@pytest.mark.parametrize(
    ("body", "amount", "field"),
    [
        (GRPO, {"tokens": 10**6, "prompts": 10}, "prompts"),
        (GRPO, {"generations": 8}, "generations"),
        (GRPO, {"prompts": 10, "generations": 0}, "generations"),
        (GRPO, {"prompts": 0}, "prompts"),
        (GRPO, {"samples": 2.5}, "samples"),
        (DPO, {"prompts": 10}, "prompts"),
    ],
)
def test_an_amount_that_says_nothing_is_refused(body: dict[str, Any], amount: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        time(body, **amount)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("generations", "nearest"),
    [
        (7, "generations=8"),
        (1, "generations=2"),
        (12, "generations=8"),
        (3, "generations=2"),
        (10**9, "generations=32"),
    ],
)
def test_completions_of_a_generation_make_up_whole_groups(generations: int, nearest: str) -> None:
    with pytest.raises(InvalidInput, match="32 completions at once") as caught:
        time(GRPO, prompts=1000, generations=generations)
    assert (caught.value.field, caught.value.hint) == ("generations", f"try {nearest}")


def test_groups_of_several_cards_and_of_verl_are_whole() -> None:
    shared = {**GRPO["recipe"], "micro_batch_size": 1, "parallelism": {"gpus": 3, "strategy": "ddp"}}
    assert time({**GRPO, "recipe": shared}, prompts=100, generations=6)["run"]["samples"] == 600
    assert (
        time({**GRPO, "recipe": {**GRPO["recipe"], "trainer": "verl"}}, prompts=100, generations=7)["run"]["samples"]
        == 700
    )
    alone = {"objective": "grpo", "micro_batch_size": 1, "sequence_length": 1024}
    with pytest.raises(InvalidInput) as caught:
        time({**GRPO, "recipe": alone}, prompts=100, generations=4)
    assert caught.value.hint == "try generations=8 with micro_batch_size=8"

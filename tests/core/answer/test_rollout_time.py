"""An iteration of reinforcement learning, phase by phase: sums, bands, what makes a phase longer, and what stays unknown."""

from __future__ import annotations

from typing import Any

import pytest

from loralens.core.answer.pace import Pace, pace_on
from loralens.core.answer.pace_shapes import IterationPace
from loralens.core.answer.rollout_time import stalled
from loralens.core.catalogue import gpu
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

GRPO: dict[str, Any] = {
    "objective": "grpo", "rollout": {"engine": "vllm", "utilization": 0.5}, "micro_batch_size": 8,
    "gradient_accumulation_steps": 4, "sequence_length": 1024, "labelled_tokens": 512,
}  # fmt: skip


def pace(method: str = "lora", card: str = "a100", model: str = "qwen2.5-1.5b", **words: Any) -> Pace:
    found = pace_on(resolve(model), method, Recipe.from_mapping(words), gpu(card))
    assert found is not None
    return found


def phases(found: Pace) -> dict[str, float]:
    return {row["phase"]: row["expected"] for row in found.iteration()["phases"]}


CASES: list[dict[str, Any]] = [
    {}, {"objective": "dpo"}, {"objective": "kto"}, {"objective": "orpo"}, {"objective": "distillation", "teacher": "0.5B"},
    GRPO, {**GRPO, "rollout": "transformers", "objective": {"type": "grpo", "reference": "adapter"}},
    {**GRPO, "objective": "ppo", "reward_model": "0.5B", "rollout": {"engine": "vllm", "utilization": 0.5, "rows": 64}},
]  # fmt: skip


@pytest.mark.parametrize("words", CASES)
def test_phases_and_parts_add_up_and_lie_in_their_bands(words: dict[str, Any]) -> None:
    found = pace(**words)
    iteration: IterationPace = found.iteration()
    for end in ("expected", "low", "high"):
        total = sum(row[end] for row in iteration["phases"])  # type: ignore[literal-required]
        assert total == pytest.approx(iteration["seconds"][end])  # type: ignore[literal-required]
    assert sum(found.step.parts.values()) == pytest.approx(found.step.seconds)
    assert found.step.seconds * iteration["steps"] == pytest.approx(iteration["seconds"]["expected"])
    for row in iteration["phases"]:
        assert row["low"] <= row["expected"] <= row["high"]
    hourly = iteration["samples_per_hour"]["expected"]
    assert hourly == pytest.approx(iteration["samples"] * 3600 / iteration["seconds"]["expected"])


def test_each_objective_has_its_own_passes() -> None:
    plain = {"forward", "backward", "optimizer", "other"}
    assert set(phases(pace())) == plain
    assert set(phases(pace(objective="dpo"))) == plain | {"reference"}
    rollout = {"sync", "rollout_prefill", "rollout_decode"}
    assert set(phases(pace(**GRPO))) == plain | rollout | {"old_logprobs"}
    ppo = pace(**CASES[-1])
    assert set(phases(ppo)) >= plain | rollout | {"rewards", "values", "critic_forward", "critic_backward"}
    assert (ppo.iteration()["steps"], ppo.iteration()["samples"]) == (2.0, 64)


def test_trls_own_ppo_scores_outside_of_the_learners_passes() -> None:
    words = {
        "objective": "ppo",
        "value": {"together": True},
        "rollout": "transformers",
        "reward_model": "0.5B",
        "autocast": None,
    }
    found = pace(**{**GRPO, **words})
    assert set(phases(found)) >= {"ref_logprobs", "values", "rewards", "rollout_decode"}
    assert "critic_forward" not in phases(found)


def test_a_precomputed_reference_is_said_to_be_outside_of_the_time() -> None:
    found = pace(objective={"type": "dpo", "reference": "precomputed"})
    assert any("not in the time" in note for note in found.notes)
    assert phases(found)["forward"] == pytest.approx(phases(pace(objective="dpo"))["forward"], rel=0.1)


def test_decoding_reads_weights_and_cache_once_a_token() -> None:
    one, longer = (phases(pace(**{**GRPO, "labelled_tokens": n, "sequence_length": 512 + n})) for n in (256, 512))
    assert 2.0 < longer["rollout_decode"] / one["rollout_decode"] < 2.2
    slow, quick = (phases(pace(card=card, **GRPO)) for card in ("l40s", "h200"))
    assert slow["rollout_decode"] > 2 * quick["rollout_decode"]
    itself = phases(pace(**{**GRPO, "rollout": "transformers"}))
    assert itself["rollout_decode"] > 2 * phases(pace(**GRPO))["rollout_decode"]


def test_fewer_sequences_at_once_take_longer() -> None:
    wide, narrow = (
        pace(model="llama-2-7b", card="h200", **{**GRPO, "rollout": {"engine": "vllm", "utilization": share}})
        for share in (0.5, 0.12)
    )
    assert wide.iteration()["at_once"] == 32 > (narrow.iteration()["at_once"] or 0) > 0
    assert phases(narrow)["rollout_decode"] > 1.5 * phases(wide)["rollout_decode"]


@pytest.mark.parametrize(("engine", "said"), [("none", "nothing is named"), ("server", "from a server")])
def test_what_generates_elsewhere_stays_unknown(engine: str, said: str) -> None:
    found = pace(**{**GRPO, "rollout": engine})
    assert not {"rollout_prefill", "rollout_decode", "sync"} & set(phases(found))
    assert found.iteration()["at_once"] is None
    assert any(said in note for note in found.notes)


@pytest.mark.parametrize(
    ("low", "enough"),
    [
        ({"engine": "vllm", "utilization": 0.1}, {"engine": "vllm", "utilization": 0.3}),
        ({"engine": "sglang", "mem_fraction_static": 0.1}, {"engine": "sglang", "mem_fraction_static": 0.5}),
    ],
)
def test_a_run_whose_engine_cannot_start_has_no_time(low: dict[str, Any], enough: dict[str, Any]) -> None:
    card = gpu("h100-sxm")
    for rollout, starts in ((low, False), (enough, True)):
        recipe = Recipe.from_mapping({**GRPO, "rollout": rollout})
        model = resolve("llama-2-7b")
        assert stalled(model, "lora", recipe, card) is not starts
        assert (pace_on(model, "lora", recipe, card) is not None) is starts


def test_only_an_engine_on_this_card_can_fail_to_start() -> None:
    for rollout in ({"engine": "none"}, {"engine": "server", "utilization": 0.01}, {"engine": "transformers"}):
        recipe = Recipe.from_mapping({**GRPO, "rollout": rollout})
        assert not stalled(resolve("llama-2-7b"), "lora", recipe, gpu("rtx-4090"))


@pytest.mark.parametrize("words", [
    {"sequence_length": 128},
    {"objective": "dpo", "sequence_length": 64},
    {"sequence_length": 128, "parallelism": {"gpus": 4, "strategy": "fsdp"}},
    {**GRPO, "rollout": "transformers"},
])  # fmt: skip
def test_where_the_processor_decides_the_answer_is_a_range(words: dict[str, Any]) -> None:
    found = pace(**words)
    assert found.ranged
    assert found.high_seconds > 2 * found.low_seconds
    assert any("wait for the processor" in note for note in found.notes)

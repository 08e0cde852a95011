"""A value model that learns beside the policy, and a reward model: what each adds, and when."""

import pytest

from loralens.core.answer.answers import memory_answer
from loralens.core.answer.estimate import estimate_model
from loralens.core.errors import InvalidInput, LoraLensError
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe

SHAPE = {"micro_batch_size": 4, "sequence_length": 512, "loss": "fused_head", "labelled_tokens": 256}


def ppo(method="lora", objective=None, **words):
    recipe = {**SHAPE, "objective": {"type": "ppo", **(objective or {})}, **words}
    return estimate_model(resolve("qwen2.5-0.5b"), method, Recipe.from_mapping(recipe))


def test_the_phases_of_an_iteration_in_their_order():
    learning = ["critic_forward", "critic_backward", "critic_optimizer", "forward", "backward", "optimizer"]
    assert list(ppo().phases) == ["old_logprobs", "ref_logprobs", "values", *learning]
    found = ppo(objective={"reference": "absent", "old_logprobs": False}, reward_model="qwen2.5-0.5b")
    assert list(found.phases) == ["rewards", "values", *learning]


def test_gradients_of_earlier_micro_batches_are_there_when_learning_begins():
    """16-bit gradients: the value model's while it learns, the policy's while that does."""
    one, two = (ppo("full", gradient_accumulation_steps=steps).phases for steps in (1, 2))
    # the ids of two micro batches are kept; nothing else differs before learning
    assert two["values"] - one["values"] == 4 * 512 * 16
    body = 494_032_768 + 896  # of Qwen2.5-0.5B, whose head is its embedding, and a head of one number
    assert two["critic_forward"] - one["critic_forward"] == 2 * body + 4 * 512 * 16
    assert two["forward"] - one["forward"] == 2 * 494_032_768 + 4 * 512 * 16


def test_what_lives_in_every_phase_is_told_apart():
    body = {
        "model": "qwen2.5-0.5b",
        "method": "lora",
        "recipe": {**SHAPE, "objective": "ppo", "reward_model": "qwen2.5-0.5b"},
    }
    held = memory_answer(body)["estimates"][0]["iteration"]["resident_bytes"]
    weights = 2 * (494_032_768 + 896)
    assert weights <= held["reward"] < weights + 1000
    assert held["reward"] * 3 <= held["value"] < held["reward"] * 3 + 2000  # and two moments


def test_one_loss_for_both_keeps_both_graphs_and_the_rollouts_scores():
    words = {"value": {"together": True}, "loss": "full"}
    apart, together, two = ppo(loss="full"), ppo(**words), ppo(**words, gradient_accumulation_steps=2)
    assert "critic_forward" not in together.phases
    scores, logits = (rows * 151_936 * 4 for rows in (4 * 256, 4 * 512))
    assert together.phases["values"] - apart.phases["values"] > scores
    assert together.phases["backward"] - apart.phases["backward"] > scores + logits
    # twice as many completions; logits and probabilities of the micro batch before
    assert two.phases["forward"] - together.phases["forward"] > scores + scores + logits
    assert any(line.startswith("value_together") for line in together.assumptions())


@pytest.mark.parametrize("strategy", ["fsdp", "fsdp2"])
def test_the_policys_ends_are_not_gathered_while_the_value_model_learns(strategy):
    """verl reshards the root after scoring: the value model's forward pass has its own embedding alone, as the policy's has."""
    found = ppo("full", {"reference": "absent"}, weights_dtype="float32", parallelism={"gpus": 4, "strategy": strategy})
    embedding = 151_936 * 896 * 4  # a float32 table, which the head is tied to
    assert found.phases["critic_forward"] - found.phases["forward"] < embedding // 4


def test_one_loop_for_both_has_no_other_engine():
    with pytest.raises(InvalidInput, match="generates with transformers alone, not with vllm"):
        ppo(value={"together": True}, rollout="vllm")


def test_an_adapter_on_the_value_model_has_small_states():
    whole, adapter = ppo(), ppo(value={"trains": "lora"})
    assert whole.phases["optimizer"] - adapter.phases["optimizer"] > 4 * 480_000_000


def test_a_reward_model_judges_groups_too():
    recipe = {**SHAPE, "objective": "grpo", "reward_model": "qwen2.5-0.5b"}
    found = estimate_model(resolve("qwen2.5-0.5b"), "lora", Recipe.from_mapping(recipe))
    assert next(iter(found.phases)) == "rewards"


def test_words_of_a_reward_model_that_is_not_named_have_no_effect():
    body = {
        "model": "qwen2.5-0.5b",
        "method": "lora",
        "recipe": {**SHAPE, "objective": "grpo", "reward_model": {"quantization": "nf4", "weights_dtype": "float32"}},
    }
    said = memory_answer(body)["estimates"][0]["without_effect"]
    assert [line["words"] for line in said] == [["reward_dtype", "reward_quantization"]]


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"reward_model": "no-such-model"}, "reward_model.model"),
        ({"reward_model": "deepseek-v4-flash"}, "reward_model.model"),
        ({"value": "no-such-model"}, "value.model"),
        ({"value": "deepseek-v4-flash"}, "value.model"),
    ],
)
def test_a_model_beside_is_refused_by_its_own_word(words, field):
    with pytest.raises(LoraLensError) as caught:
        ppo(**words)
    assert caught.value.field == field
    assert "head=lm" not in (caught.value.hint or "")


@pytest.mark.parametrize("ask", ["simulated", "lifetimes"])
def test_a_walk_of_one_learner_is_refused(ask):
    from loralens.core.answer.lifetimes import lifetimes

    found = ppo()
    with pytest.raises(InvalidInput, match="two models learn"):
        found.simulated() if ask == "simulated" else lifetimes(found.model, "lora", found.recipe)


def test_names_of_other_programs():
    config = resolve("qwen2.5-0.5b").config
    assert Recipe.from_mapping({"objective": {"type": "ppo", "value": {"config": config}}}) == Recipe.from_mapping(
        {"objective": "ppo", "value": {"model": config}}
    )
    assert Recipe.from_mapping({"objective": {"type": "ppo", "value": "same"}}) == Recipe.from_mapping(
        {"objective": "ppo"}
    )

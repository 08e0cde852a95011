"""Real steps of a learner on this machine's processor, against the computed ones, phase by phase."""

import warnings

import pytest

from loralens.core.errors import InvalidInput
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.lab.measure import measure

SMALL = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 2, "vocab_size": 2000,
    "num_attention_heads": 8, "num_key_value_heads": 4,
}  # fmt: skip
STEP = {"micro_batch_size": 2, "sequence_length": 64, "autocast": None, "gradient_checkpointing": False}
GROUPS = {"objective": {"type": "grpo", "reference": "adapter", "old_logprobs": True}, "labelled_tokens": 32}
TAUGHT = {"objective": "distillation", "teacher": {"model": {**SMALL, "hidden_size": 320}}, "autocast": "bfloat16"}


@pytest.mark.parametrize(
    ("method", "words", "within"),
    [
        ("lora", {"objective": "dpo"}, 0.002),
        ("full", {"objective": "dpo"}, 0.002),
        ("lora", {"objective": "kto", "gradient_checkpointing": True}, 0.005),
        ("lora", {"objective": "orpo", "autocast": "bfloat16"}, 0.002),
        ("lora", {"objective": "reward"}, 0.002),
        ("lora", GROUPS, 0.002),
        ("full", {"objective": "rloo", "labelled_tokens": 32}, 0.005),
        ("lora", {"objective": "ppo", "labelled_tokens": 32}, 0.002),
        ("full", {"objective": "ppo", "labelled_tokens": 32, "value": {"trains": "lora"}}, 0.002),
        ("lora", {"objective": "contrastive", "micro_batch_size": 8}, 0.01),
        ("full", {"objective": {"type": "contrastive", "mini_batch_size": 4}, "micro_batch_size": 16}, 0.002),
        # a processor's attention and the teacher's cache, which is not run, are in it
        ("lora", TAUGHT, 0.02),
    ],
)
def test_computed_equals_measured(method, words, within):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = measure(resolve(config=SMALL), method, Recipe.from_mapping({**STEP, **words}), "cpu")
    assert list(found.row["phases"]) == list(found.predicted_phases)
    for phase, size in found.row["phases"].items():
        assert found.predicted_phases[phase] == pytest.approx(size, rel=within), phase


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"objective": "ppo", "value": {"together": True}}, "value.together"),
        ({"objective": "ppo", "reward_model": "qwen2.5-0.5b"}, "reward_model.model"),
        ({"objective": {"type": "contrastive", "gather_across_devices": True}}, "objective.gather_across_devices"),
        ({"objective": {"type": "grpo"}, "rollout": "transformers"}, "rollout.engine"),
    ],
)
def test_what_is_not_run_is_refused(words, field):
    with pytest.raises(InvalidInput) as refused:
        measure(resolve(config=SMALL), "lora", Recipe.from_mapping({**STEP, **words}), "cpu")
    assert refused.value.field == field

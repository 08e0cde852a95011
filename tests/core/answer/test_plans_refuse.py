"""A plan is refused whenever the whole answer is: what an evaluation, a machine's memory or an engine refuses, too."""

import random

import pytest

from loralens.core.answer.answers import memory_answer, plan_answer
from loralens.core.errors import LoraLensError
from loralens.core.question.flat import nested
from loralens.core.question.recipe import ALL_WORDS

CHOICES = [
    (row.name, value) for row in ALL_WORDS if row.kind.flat for value in row.kind.choices if value != str(row.default)
]
BASES = [
    {},
    {"gpus": 4, "strategy": "zero3"},
    {"gpus": 4, "strategy": "fsdp2"},
    {"objective": "grpo", "rollout": "vllm"},
    {"objective": "dpo"},
    {"eval_samples": 64},
]


def said(ask, method, words):
    try:
        ask({"model": "qwen2.5-0.5b", "method": method, "recipe": nested(words)})
    except LoraLensError as error:
        return error.code, error.message, error.field, error.hint
    return None


@pytest.mark.parametrize("seed", range(4))
def test_two_more_words_are_refused_by_both_or_by_neither(seed):
    draw = random.Random(seed)
    for _ in range(40):
        words = {"sequence_length": 256, **draw.choice(BASES), **dict(draw.sample(CHOICES, 2))}
        method = draw.choice(("full", "lora", "qlora"))
        assert said(plan_answer, method, words) == said(memory_answer, method, words), (method, words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            {
                "gpus": 4,
                "strategy": "zero3",
                "offload": "parameters",
                "offload_device": "nvme",
                "param_buffer_size": 100_000,
            },
            "which DeepSpeed refuses",
        ),
        ({"objective": "dpo", "eval_samples": 64, "eval_metrics": "logits"}, "supervised fine-tuning alone"),
        ({"objective": "grpo", "rollout": "vllm", "rollout_tp": 2}, "must not be above the GPUs"),
    ],
)
def test_what_stands_beside_the_step_refuses_its_plan(words, says):
    assert says in said(memory_answer, "full", words)[1]
    assert said(plan_answer, "full", words) == said(memory_answer, "full", words)

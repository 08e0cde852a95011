"""The peak alone is the plan's, whose figures traces of the real libraries hold."""

import pytest

from loralens.core.answer import peaks
from loralens.core.answer.plan import plan_for
from loralens.core.question.model import named
from loralens.core.question.recipe import Recipe

CASES = [
    ("llama-2-7b", "lora", {}),
    ("llama-2-7b", "full", {"micro_batch_size": 3, "sequence_length": 700, "gradient_checkpointing": False}),
    ("qwen3-next-80b-a3b", "lora", {"sequence_length": 1000, "padded": True}),
    ("mixtral-8x7b", "qlora", {"gradient_accumulation_steps": 2}),
    ("t5-small", "dora", {"checkpoint_reentrant": True}),
    (
        "gpt2",
        "full",
        {"optimizer_in_backward": True, "attention": "eager", "weights_dtype": "float16", "autocast": None},
    ),
    ("qwen2.5-0.5b", "lora", {"objective": {"type": "dpo"}}),
    ("qwen2.5-0.5b", "full", {"keep_outputs": True}),
    ("qwen2.5-0.5b", "full", {"parallelism": {"gpus": 4, "strategy": "fsdp"}}),
]


@pytest.mark.parametrize(("name", "method", "words"), CASES)
def test_the_peak_alone_is_the_plans(name, method, words):
    recipe = Recipe.from_mapping({"accelerator": "cuda-before-8", **words})
    at = (recipe.micro_batch_size, recipe.sequence_length, recipe.lora.rank)
    wanted = plan_for(named(name), method, recipe).peaks(*at)[2]
    assert peaks.peak_bytes(named(name), method, recipe) == wanted
    assert peaks.peak_bytes(named(name), method, recipe) == wanted  # found again


def test_it_holds_for_other_settings_and_is_walked_once(monkeypatch):
    peaks._peaks.clear()
    walks = []
    monkeypatch.setattr(peaks, "_walk_peaks", lambda *of, walk=peaks._walk_peaks: walks.append(of) or walk(*of))
    for batch, length in ((2, 512), (4, 4096), (3, 1)):
        recipe = Recipe.from_mapping({"micro_batch_size": batch, "sequence_length": length})
        wanted = plan_for(named("qwen2.5-0.5b"), "lora", recipe).peaks(batch, length, 8)[2]
        assert peaks.peak_bytes(named("qwen2.5-0.5b"), "lora", recipe) == wanted
    assert len(walks) == 1

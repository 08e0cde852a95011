"""TRL's other trainers in a script: the objective, its reference and its rollout are read off the config."""

import pytest

from loralens.trainers.check import check_answer

HEAD = """
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import {config}, {trainer}
model = AutoModelForCausalLM.from_pretrained("Qwen/Qwen3-8B", dtype="bfloat16")
args = {config}(per_device_train_batch_size=2, {words})
trainer = {trainer}(model=model, args=args, peft_config=LoraConfig(r=16))
"""


def read(kind, words):
    text = HEAD.format(config=f"{kind}Config", trainer=f"{kind}Trainer", words=words)
    return check_answer({"files": {"train.py": text}})["recipe"]


@pytest.mark.parametrize(
    ("kind", "words", "reference"),
    [
        ("DPO", "beta=0.1", "adapter"),
        ("DPO", "precompute_ref_log_probs=True", "precomputed"),
        ("KTO", "beta=0.1", "adapter"),
    ],
)
def test_preferences(kind, words, reference):
    recipe = read(kind, words)
    assert recipe["objective"]["type"] == kind.lower()
    assert recipe["objective"]["reference"] == reference
    assert (recipe["loss"], recipe["micro_batch_size"]) == ("fused_head", 2)


def test_grpo_with_an_engine_on_the_card():
    words = "max_completion_length=1024, use_vllm=True, vllm_gpu_memory_utilization=0.4, vllm_enable_sleep_mode=True"
    recipe = read("GRPO", words)
    assert recipe["rollout"] == {"engine": "vllm", "rows": None, "utilization": 0.4, "sleep_level": 2}
    assert (recipe["labelled_tokens"], recipe["sequence_length"]) == (1024, 1536)
    assert recipe["objective"]["reference"] is None


def test_grpo_alone_generates_with_transformers():
    recipe = read("GRPO", "beta=0.04")
    assert recipe["rollout"]["engine"] == "transformers"
    assert recipe["objective"]["reference"] == "adapter"

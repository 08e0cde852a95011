"""TRL's other trainers in a script: the objective, its reference and its rollout are read off the config."""

import pytest

from loralens.core.question.recipe import Recipe
from loralens.trainers.check import check_answer
from loralens.trainers.write_objectives import objective_keys

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


def test_how_many_rows_are_scored_before_training_is_read_and_written():
    recipe = read("DPO", "precompute_ref_log_probs=True, precompute_ref_batch_size=16")
    assert recipe["objective"]["precompute_batch_size"] == 16
    keys = objective_keys("lora", Recipe.from_mapping({"objective": recipe["objective"]}))
    assert keys["precompute_ref_batch_size"] == 16


def test_grpo_with_an_engine_on_the_card():
    words = "max_completion_length=1024, use_vllm=True, vllm_gpu_memory_utilization=0.4, vllm_enable_sleep_mode=True"
    recipe = read("GRPO", words)
    said = {"engine": "vllm", "rows": None, "utilization": 0.4, "sleep_level": 2}
    assert {word: recipe["rollout"][word] for word in said} == said
    assert (recipe["labelled_tokens"], recipe["sequence_length"]) == (1024, 1536)
    assert recipe["objective"]["reference"] is None


def test_grpo_alone_generates_with_transformers():
    recipe = read("GRPO", "beta=0.04")
    assert recipe["rollout"]["engine"] == "transformers"
    assert recipe["objective"]["reference"] == "adapter"


def test_rloo_has_a_reference_unless_beta_is_zero():
    recipe = read("RLOO", "max_completion_length=128, num_generations=2")
    assert (recipe["objective"]["type"], recipe["objective"]["reference"]) == ("rloo", "adapter")
    without = read("RLOO", "beta=0.0, num_generations=2")
    assert without["objective"]["reference"] == "absent"
    assert objective_keys("lora", Recipe.from_mapping(without))["beta"] == 0.0
    assert check_answer({"files": {"rloo.yaml": CONFIG}})["recipe"]["objective"]["type"] == "rloo"


CONFIG = "model_name_or_path: Qwen/Qwen3-8B\nuse_peft: true\nlora_r: 16\nlora_dropout: 0.1\nmax_length: 512\n"


@pytest.mark.parametrize(
    ("name", "own", "objective", "dropout"),
    [
        ("dpo.yaml", "", "dpo", 0.0),
        ("train.yaml", "precompute_ref_log_probs: true\n", "dpo", 0.0),
        ("qwen-kto-8b.yaml", "beta: 0.2\n", "kto", 0.0),
        ("train.yaml", "desirable_weight: 1.0\ndisable_dropout: false\n", "kto", 0.1),
        ("train.yaml", "num_generations: 4\nmax_completion_length: 128\n", "grpo", 0.1),
        ("sft.yaml", "", "sft", 0.1),
    ],
)
def test_a_yaml_file_names_its_objective_or_a_key_does(name, own, objective, dropout):
    answer = check_answer({"files": {name: CONFIG + own}})
    assert (answer["recipe"]["objective"]["type"], answer["recipe"]["lora"]["dropout"]) == (objective, dropout)
    assert (answer["unknown"], answer["blockers"]) == ([], [])


def test_a_command_line_names_its_objective():
    text = "trl kto --model_name_or_path Qwen/Qwen3-8B --use_peft --max_length 256 --per_device_train_batch_size 4\n"
    recipe = check_answer({"files": {"train.sh": text}})["recipe"]
    assert (recipe["objective"]["type"], recipe["sequence_length"], recipe["micro_batch_size"]) == ("kto", 256, 4)


def test_an_objective_that_nothing_names_is_a_blocker():
    blockers = check_answer({"files": {"train.yaml": CONFIG + "beta: 0.1\n"}})["blockers"]
    assert [row["key"] for row in blockers] == ["beta"]


def test_prompts_have_the_length_that_something_says():
    words = "num_generations: 4\nmax_completion_length: 128\n"
    answer = check_answer({"files": {"grpo.yaml": CONFIG + words}})
    assert answer["recipe"]["sequence_length"] == 640
    assert any("prompts" in question for question in answer["questions"])
    engine = "use_vllm: true\nvllm_max_model_length: 2048\nsteps_per_generation: 2\n"
    answer = check_answer({"files": {"grpo.yaml": CONFIG + words + engine}})
    assert (answer["recipe"]["sequence_length"], answer["recipe"]["rollout"]["rows"]) == (2048, 16)
    assert answer["questions"] == []


def test_orpo_builds_whole_logits():
    recipe = read("ORPO", "max_length=512")
    assert (recipe["objective"]["type"], recipe["loss"], recipe["lora"]["dropout"]) == ("orpo", "full", 0.0)

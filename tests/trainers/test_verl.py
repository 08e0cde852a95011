"""verl's commands, whose facts are read off its own examples (verl b178a3cd56f5, examples/)."""

import pytest

from loralens.core.answer.estimate import estimate_model
from loralens.core.question.model import resolve
from loralens.core.question.presets import as_trained
from loralens.core.question.recipe import Recipe
from loralens.trainers.reader import read, recipe_of

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
GRPO = {  # grpo_trainer/run_qwen2-7b.sh
    "algorithm.adv_estimator": "grpo", "data.train_batch_size": 1024, "data.max_prompt_length": 512,
    "data.max_response_length": 1024, "actor_rollout_ref.model.path": "Qwen/Qwen2-7B-Instruct",
    f"{ACTOR}.ppo_mini_batch_size": 256, f"{ACTOR}.ppo_micro_batch_size_per_gpu": 40, f"{ACTOR}.use_kl_loss": True,
    f"{ROLLOUT}.tensor_model_parallel_size": 2, f"{ROLLOUT}.name": "vllm", f"{ROLLOUT}.gpu_memory_utilization": 0.6,
    f"{ROLLOUT}.n": 5, "trainer.n_gpus_per_node": 8, "trainer.nnodes": 1,
}  # fmt: skip
PPO = {  # ppo_trainer/run_deepseek7b_llm.sh
    "algorithm.adv_estimator": "gae", "data.train_batch_size": 1024, "data.max_prompt_length": 512,
    "data.max_response_length": 512, "actor_rollout_ref.model.path": "deepseek-ai/deepseek-llm-7b-chat",
    f"{ACTOR}.ppo_mini_batch_size": 256, f"{ACTOR}.ppo_micro_batch_size_per_gpu": 16,
    f"{ROLLOUT}.gpu_memory_utilization": 0.4, "critic.model.path": "deepseek-ai/deepseek-llm-7b-chat",
    "critic.ppo_micro_batch_size_per_gpu": 32, "trainer.n_gpus_per_node": 8,
}  # fmt: skip
LORA = {  # grpo_trainer/run_qwen2_5-3b_gsm8k_grpo_lora.sh
    **GRPO, "actor_rollout_ref.model.path": "Qwen/Qwen2.5-3B-Instruct", "actor_rollout_ref.model.lora_rank": 64,
    "actor_rollout_ref.model.lora_alpha": 32, "data.train_batch_size": 16, f"{ACTOR}.ppo_mini_batch_size": 16,
    "trainer.n_gpus_per_node": 2,
}  # fmt: skip


def read_command(settings):
    words = [f"    {key}={value} \\" for key, value in settings.items()]
    return read({"files": {"run.sh": "\n".join(["set -x", "python3 -m verl.trainer.main_ppo \\", *words, "    $@"])}})


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        (GRPO, {"objective": "grpo", "micro_batch_size": 40, "sequence_length": 1536, "labelled_tokens": 1024, "gpus": 8,
                "gradient_accumulation_steps": 4, "rollout_rows": 640, "reference": "copy", "rollout": "vllm", "rollout_tp": 2,
                "gpu_memory_utilization": 0.6, "sleep_level": 1, "strategy": "fsdp", "weights_dtype": "float32",
                "loss": "kernel", "attention": "flash", "padded": False}),
        (PPO, {"objective": "ppo", "micro_batch_size": 16, "sequence_length": 1024, "gradient_accumulation_steps": 2,
               "reference": "absent", "value_model": None, "value_dtype": "float32", "rollout_rows": 128}),
        (LORA, {"rank": 64, "alpha": 32, "target_modules": "all-linear", "reference": "adapter", "adapter_dtype": "float32",
                "rollout_rows": 40, "gradient_accumulation_steps": 1}),
    ],
)  # fmt: skip
def test_every_fact_is_in_the_recipe(settings, facts):
    r = read_command(settings)
    recipe = as_trained(recipe_of(r), r.method)
    assert {name: recipe.get(name) for name in facts} == facts
    assert r.method == ("lora" if settings is LORA else "full")
    assert not r.unknown
    assert not r.blocks


@pytest.mark.parametrize(("engine", "key"), [("sglang", "mem_fraction_static"), ("vllm", "gpu_memory_utilization")])
def test_an_engines_own_argument_goes_over_verls(engine, key):
    own = {f"{ROLLOUT}.name": engine, f"+{ROLLOUT}.engine_kwargs.{engine}.{key}": 0.8}
    assert recipe_of(read_command({**GRPO, **own})).get(key) == 0.8


def test_a_mean_without_the_completion_itself_is_rloo():
    words = {"algorithm.adv_estimator": "rloo", f"{ACTOR}.use_kl_loss": False}
    recipe = recipe_of(read_command({**GRPO, **words}))
    assert (recipe.objective.type, recipe.objective.reference) == ("rloo", "absent")
    recipe = recipe_of(read_command({**LORA, **words, f"{ACTOR}.use_kl_loss": True}))
    assert (recipe.objective.type, recipe.objective.reference) == ("rloo", "adapter")


def test_hydras_lists_are_read():
    listed = {"actor_rollout_ref.model.target_modules": "'[q_proj,v_proj]'"}
    assert recipe_of(read_command({**LORA, **listed})).lora.target_modules == ("q_proj", "v_proj")


def test_sglang_has_words_of_its_own():
    engine = {f"{ROLLOUT}.name": "sglang", f"{ROLLOUT}.free_cache_engine": False}
    rollout = recipe_of(read_command({**GRPO, **engine})).rollout
    assert (rollout.engine, rollout.mem_fraction_static, rollout.memory_release) == ("sglang", 0.6, "nothing")
    assert recipe_of(read_command({**GRPO, f"{ROLLOUT}.name": "sglang"})).rollout.memory_release == "weights"


@pytest.mark.parametrize(
    ("name", "away"), [("param_offload", "parameters"), ("optimizer_offload", "optimizer"), ("other", "none")]
)
def test_what_waits_on_the_host_while_completions_are_generated(name, away):
    found = recipe_of(read_command({**GRPO, f"{ACTOR}.fsdp_config.{name}": True})).rollout
    assert (found.trainer_offload, found.tensor_parallel) == (away, 2)


def test_yaml_says_the_same():
    nested = (
        "algorithm: {adv_estimator: grpo}\ndata: {train_batch_size: 1024, max_prompt_length: 512, max_response_length: 1024}\n"
        "actor_rollout_ref:\n  model: {path: Qwen/Qwen2-7B-Instruct}\n"
        "  actor: {ppo_mini_batch_size: 256, ppo_micro_batch_size_per_gpu: 40, use_kl_loss: true}\n"
        "  rollout: {tensor_model_parallel_size: 2, name: vllm, gpu_memory_utilization: 0.6, n: 5}\n"
        "trainer: {n_gpus_per_node: 8, nnodes: 1}\n"
    )
    said = read({"files": {"ppo_trainer.yaml": nested}})
    assert said.words == read_command(GRPO).words


def test_what_is_not_counted_is_said():
    r = read_command({**GRPO, f"{ACTOR}.fsdp_config.param_offload": True, f"{ACTOR}.strategy": "megatron"})
    assert {key.key for key, _ in r.approximate} >= {
        f"{ACTOR}.use_kl_loss", f"{ACTOR}.fsdp_config.param_offload",
    }  # fmt: skip
    assert [key.key for key, _ in r.blocks] == [f"{ACTOR}.strategy"]


def test_logits_are_16_bits_and_their_gradient_is_written_over_them():
    recipe = {"micro_batch_size": 2, "sequence_length": 512, "objective": {"type": "grpo", "old_logprobs": False},
              "loss": "kernel", "stack": {"verl": "0.7"}, "autocast": None}  # fmt: skip
    found = estimate_model(resolve("qwen2.5-0.5b"), "full", Recipe.from_mapping(recipe))
    logits = max(moment.by_category()[5].at(2, 512, 8) for moment in found.plan.moments)
    per_row = 4 + 4 + 8 + 4  # log-probability, logarithm of the sum, label, gradient
    assert 0 <= logits - 2 * 512 * 151_936 * 2 <= 2 * 512 * per_row + 16


def test_a_key_but_for_a_letter_of_one_that_is_read_is_not_left_out():
    group = "actor_rollout_ref.model"
    reading = read_command(
        {**GRPO, f"{group}.lora_rnk": 32, f"{ROLLOUT}.gpu_memory_utilisation": 0.4, f"{ROLLOUT}.top_p": 1}
    )
    assert [(one.key, reading.closest(one.key)) for one in reading.unknown] == [
        (f"{group}.lora_rnk", f"{group}.lora_rank"),
        (f"{ROLLOUT}.gpu_memory_utilisation", f"{ROLLOUT}.gpu_memory_utilization"),
    ]

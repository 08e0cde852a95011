"""A recipe as verl's command: what `verl.py` reads, said.

**Source:** verl 0.7.0 trainer/config/*.yaml; utils/config.py (`validate_config`), workers/config/actor.py (`validate`); its engines are
workers/rollout/base.py (`_ROLLOUT_REGISTRY`).
"""

from __future__ import annotations

import shlex
from typing import Any, Final

from loralens.core.errors import InvalidInput
from loralens.core.question.objectives import GENERATED, GROUPED, ON_THIS_CARD
from loralens.core.question.recipe import Recipe
from loralens.trainers.verl import ACTOR, CRITIC, ESTIMATOR, MODEL, PROMPT, RESPONSE, ROLLOUT

Keys = dict[str, Any]
HEAD: Final = (
    "# What decides the memory of a step. The data, the reward, the learning rate and the folder for results are yours to add.\n"
    "# Completions are scored in micro-batches as large as the learner's; what others take is not counted.\n"
)
ESTIMATORS: Final = {"grpo": "grpo", "rloo": "rloo", "ppo": "gae"}
NAMES: Final = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
GENERATIONS: Final = (8, 4, 2)
MACHINE: Final = 8  # the default of trainer.n_gpus_per_node


def as_verl_has_it(recipe: Recipe, left_open: frozenset[str]) -> dict[str, Any]:
    """Words that verl always has, where the question leaves them open (`left_open`: all that it does not say)."""
    if recipe.objective.type not in GENERATED:
        return {}
    length = recipe.sequence_length if "sequence_length" not in left_open else PROMPT + RESPONSE
    strategy = recipe.parallelism.strategy if "strategy" not in left_open else "fsdp"
    words: dict[str, Any] = {
        "sequence_length": length,
        "labelled_tokens": length // 2,
        "rollout": "vllm",
        "gpu_memory_utilization": 0.5,
        "sleep_level": 1,
        "rollout_rows": recipe.micro_batch_size * recipe.gradient_accumulation_steps,
        "strategy": strategy,
    }
    if recipe.objective.type != "grpo":
        words["reference"] = "absent"
    if recipe.objective.type == "ppo":
        words["value_dtype"] = recipe.weights_dtype
    if strategy == "fsdp2":
        words |= {"gather_dtype": "bfloat16", "reduce_dtype": "float32"}
    return {word: value for word, value in words.items() if word in left_open}


def write_verl(model: str, method: str, recipe: Recipe) -> str:
    """`python3 -m verl.trainer.main_ppo key=value …`, with what its user adds at the end (`$@`).

    Raises:
        InvalidInput: completions that make up no groups, fewer of them than an update learns from, or an engine cut among more GPUs than there are.
    """
    words = [f"{key}={shlex.quote(_text(value))}" for key, value in verl_keys(model, method, recipe).items()]
    return HEAD + " \\\n    ".join(["python3 -m verl.trainer.main_ppo", *words, '"$@"']) + "\n"


def verl_keys(model: str, method: str, recipe: Recipe) -> Keys:
    """See `verl.read_verl`; raises as `write_verl`."""
    p, kind = recipe.parallelism, recipe.objective.type
    strategy = "fsdp2" if p.strategy == "fsdp2" else "fsdp"
    machine = p.gpus if p.gpus % MACHINE else min(p.gpus, MACHINE)
    keys: Keys = {
        ESTIMATOR: ESTIMATORS.get(kind, kind),
        f"{MODEL}.path": model,
        f"{MODEL}.enable_gradient_checkpointing": recipe.gradient_checkpointing,
        f"{MODEL}.enable_activation_offload": recipe.checkpoint_offload == "cpu",
        f"{MODEL}.use_remove_padding": not recipe.padded,
        f"{ACTOR}.strategy": strategy,
        f"{ACTOR}.fsdp_config.model_dtype": NAMES[recipe.weights_dtype],
        f"{ACTOR}.fsdp_config.offload_policy": p.offload == "parameters",
        f"{ACTOR}.use_kl_loss": recipe.objective.reference == "adapter",
        "trainer.n_gpus_per_node": machine,
        "trainer.nnodes": p.gpus // machine,
    }
    if recipe.max_grad_norm is not None:
        keys[f"{ACTOR}.grad_clip"] = recipe.max_grad_norm
    if method != "full":
        keys |= {f"{MODEL}.lora_rank": recipe.lora.rank, f"{MODEL}.lora_alpha": recipe.lora.alpha}
        chosen = recipe.lora.target_modules
        keys[f"{MODEL}.target_modules"] = list(chosen) if isinstance(chosen, tuple) else "all-linear"
    keys |= _batches(recipe) | _engine(recipe)
    if kind == "ppo":
        keys |= _critic(model, strategy, recipe)
    if isinstance(recipe.reward_model.model, str):
        keys |= {"reward_model.enable": True, "reward_model.model.path": recipe.reward_model.model}
    return keys


def _batches(recipe: Recipe) -> Keys:
    """Prompts of a generation and of an update; of each, its completions stand side by side."""
    gpus, micro = recipe.parallelism.gpus, recipe.micro_batch_size
    learned = micro * recipe.gradient_accumulation_steps * gpus
    rows = (recipe.rollout.rows or micro * recipe.gradient_accumulation_steps) * gpus
    if rows < learned:
        raise InvalidInput(
            f"verl generates at least what an update learns from: {rows} completions are fewer than {learned}",
            field="rollout_rows",
            hint=f"try rollout_rows={learned // gpus}",
        )
    each = 1
    if recipe.objective.type in GROUPED:
        each = next((count for count in GENERATIONS if rows % count == learned % count == 0), 0)
    if not each:
        raise InvalidInput(
            f"{recipe.objective.type.upper()} compares completions of one prompt with each other: {learned} at a time make up no such groups",
            field="micro_batch_size",
            hint="try micro_batch_size=8, or gradient_accumulation_steps=8",
        )
    completion = recipe.labelled_tokens or recipe.sequence_length // 2
    return {
        "data.max_prompt_length": max(1, recipe.sequence_length - completion),
        "data.max_response_length": completion,
        "data.train_batch_size": rows // each,
        f"{ROLLOUT}.n": each,
        f"{ACTOR}.ppo_mini_batch_size": learned // each,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu": micro,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu": micro,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": micro,
    }


def _engine(recipe: Recipe) -> Keys:
    rollout = recipe.rollout
    if rollout.engine not in ON_THIS_CARD:
        return {}
    if recipe.parallelism.gpus % rollout.tensor_parallel:
        raise InvalidInput(
            f"rollout_tp must divide the GPUs that there are ({recipe.parallelism.gpus}), got {rollout.tensor_parallel}",
            field="rollout_tp",
            hint="try rollout_tp=1",
        )
    apart = rollout.engine == "sglang"
    return {
        f"{ROLLOUT}.name": rollout.engine,
        f"{ROLLOUT}.gpu_memory_utilization": rollout.mem_fraction_static if apart else rollout.utilization,
        f"{ROLLOUT}.free_cache_engine": rollout.memory_release != "nothing" if apart else rollout.sleep_level != 0,
        f"{ROLLOUT}.tensor_model_parallel_size": rollout.tensor_parallel,
    }


def _critic(model: str, strategy: str, recipe: Recipe) -> Keys:
    value = recipe.value
    keys: Keys = {
        f"{CRITIC}.strategy": strategy,
        f"{CRITIC}.model.path": value.model if isinstance(value.model, str) else model,
        f"{CRITIC}.model.fsdp_config.model_dtype": NAMES[value.weights_dtype or recipe.weights_dtype],
        f"{CRITIC}.model.enable_gradient_checkpointing": recipe.gradient_checkpointing,
        f"{CRITIC}.model.use_remove_padding": not recipe.padded,
        f"{CRITIC}.ppo_micro_batch_size_per_gpu": recipe.micro_batch_size,
    }
    if value.trains == "lora":
        keys |= {f"{CRITIC}.model.lora_rank": recipe.lora.rank, f"{CRITIC}.model.lora_alpha": recipe.lora.alpha}
    return keys


def _text(value: Any) -> str:
    """As Hydra reads it on a command line."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)

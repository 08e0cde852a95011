"""The keys that TRL's other trainers have beside those of supervised fine-tuning: what `trl_objectives.py` reads, said."""

from __future__ import annotations

from typing import Final

from loralens.core.errors import InvalidInput
from loralens.core.question.objectives import GROUPED, STILL
from loralens.core.question.recipe import Recipe

BETA: Final = 0.04
"""GRPO's weight of the divergence from its reference, where there is one: the paper's (arXiv:2402.03300, section 4.2)."""
RLOO_BETA: Final = 0.05
"""TRL 1.16.0 trainer/rloo_config.py."""
GENERATIONS: Final = (8, 4, 2)


def completion_tokens(recipe: Recipe) -> int:
    """Of a row, how many the model writes itself."""
    return recipe.labelled_tokens or recipe.sequence_length // 2


def objective_keys(method: str, recipe: Recipe) -> dict[str, object]:
    """The config's own keys; none for supervised fine-tuning.

    Raises:
        InvalidInput: GRPO or RLOO with rows that do not make up groups of completions.
    """
    kind = recipe.objective.type
    keys: dict[str, object] = {}
    if kind in STILL and method != "full" and recipe.lora.dropout:
        keys["disable_dropout"] = False
    if kind in ("dpo", "kto"):
        keys["precompute_ref_log_probs"] = recipe.objective.reference == "precomputed"
        if recipe.objective.reference == "precomputed" and recipe.objective.precompute_batch_size:
            keys["precompute_ref_batch_size"] = recipe.objective.precompute_batch_size
    elif kind in GROUPED:
        keys |= _grouped(recipe)
    return keys


def _grouped(recipe: Recipe) -> dict[str, object]:
    rollout = recipe.rollout
    rows = rollout.rows or recipe.micro_batch_size * recipe.gradient_accumulation_steps
    steps = {} if rollout.rows is None else {"steps_per_generation": max(1, rows // recipe.micro_batch_size)}
    together = rows * recipe.parallelism.gpus
    generations = next((count for count in GENERATIONS if together % count == 0), None)
    if generations is None:
        raise InvalidInput(
            f"{recipe.objective.type.upper()} compares completions of one prompt with each other: {together} at a time make up no such groups",
            field="micro_batch_size",
            hint="try micro_batch_size=8, or gradient_accumulation_steps=8",
        )
    keys: dict[str, object] = {
        "max_completion_length": completion_tokens(recipe),
        "num_generations": generations,
        "beta": _beta(recipe),
        "use_vllm": rollout.engine in ("vllm", "server"),
        **steps,
    }
    if rollout.engine == "server":
        keys["vllm_mode"] = "server"
    elif rollout.engine == "vllm":
        keys |= {
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": rollout.utilization,
            "vllm_enable_sleep_mode": rollout.sleep_level == 2,
            "vllm_max_model_length": recipe.sequence_length,
        }
    return keys


def _beta(recipe: Recipe) -> float:
    if recipe.objective.type == "rloo":
        return 0.0 if recipe.objective.reference == "absent" else RLOO_BETA
    return BETA if recipe.objective.reference else 0.0

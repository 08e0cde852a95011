"""Whole steps of TRL's own objectives on fake CUDA tensors: `python tests/trainers/trl_objective_traces.py FILE [NAME…]`.

Appends rows to a file of JSON lines (`tests/oracles/traced-objectives.jsonl`). The methods that compute a loss are the trainers' own,
unbound, on an object with what they read; accelerate's autocast and its float32 copy of what the model returns are around the model
alone. Triton kernels that write into what TRL allocates are left out. What is transcribed says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peft  # noqa: F401  # it registers bitsandbytes' operators
import torch
from trainers.trl_bare import NoKernel
from trainers.trl_learners import Distillation, Dpo, Gkd, Grpo, Kto, Objective, Odds, Reward, Rloo

from loralens.core.question.parallelism import Parallelism
from loralens.core.question.recipe import Recipe
from loralens.lab.trace import build, kernels, peaks, step
from loralens.lab.trace.grid_cases import small_config

VARIANTS = ("grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo")
"""`loss_type`s of GRPOTrainer beside its default, `dapo`."""


def objective_of(recipe: Recipe) -> type[Objective]:
    """Whose code runs."""
    kind = recipe.objective.type
    if kind == "ppo" and recipe.value.together:
        from trainers.trl_together import Together  # TRL 1.12 has to be there

        return Together
    if kind == "ppo":
        from trainers.trl_critics import Ppo  # verl has to be there

        return Ppo
    if kind == "contrastive":
        from trainers.embedding_learners import Vectors

        return Vectors
    if kind == "distillation":
        return Distillation if recipe.loss == "fused_head" else Gkd
    return {
        "dpo": Dpo,
        "kto": Kto,
        "reward": Reward,
        "orpo": Odds,
        "cpo": Odds,
        "simpo": Odds,
        "grpo": Grpo,
        "rloo": Rloo,
    }[kind]


def traced(config: dict[str, Any], method: str, given: dict[str, Any]) -> dict[str, Any]:
    """Counts and peaks of one step."""
    recipe = Recipe.from_mapping(given)
    if (
        method == "full"
        and recipe.objective.type in ("dpo", "kto", "ppo", "rloo")
        and recipe.objective.reference is None
    ):
        recipe = recipe.with_("reference", "copy")
    elif recipe.objective.type in ("ppo", "rloo") and recipe.objective.reference is None:
        recipe = recipe.with_("reference", "adapter")
    made = objective_of(recipe)(recipe, config)
    others = made.beside()
    kernels.CHOSEN.clear()

    def act(training: Any) -> None:
        ledger = training.ledger
        for other in others.values():
            build.to_fake_gpu(other, ledger, adapted=False, dtype=torch.bfloat16)
            other.eval()
        ids = training.batch.pop("input_ids")
        training.batch.clear()
        with ledger.naming("input", "batch"):
            batch = made.batch(ids)
        del ids
        made.ledger = ledger
        made.setup(training.model, others)
        _without_dropout(training.model, recipe)
        made.step(training, batch, ledger.begin)

    asked = replace(
        recipe, micro_batch_size=recipe.micro_batch_size * made.rows, autocast=None, loss="full", stack=(),
        head=made.head, num_labels=1 if made.head == "reward" else None, objective=type(recipe.objective)(),
        parallelism=Parallelism(),
    )  # fmt: skip
    ledger, counts = step.run(build.read_config(config), method, asked, act=act)
    found = peaks.phase_peaks(ledger.recorded())
    levels = {name: moment.live_bytes for name, moment in found.items() if ": " not in name}
    top = max(levels, key=lambda name: levels[name])
    return {**counts, "phase": top, "peak_allocated_bytes": levels[top], "phase_peaks": levels}


def _without_dropout(model: Any, recipe: Recipe) -> None:
    if recipe.objective.type not in ("grpo", "rloo", "ppo", "distillation", "contrastive"):
        import_module("trl.trainer.utils").disable_dropout_in_model(model)


def cases() -> Iterator[tuple[str, str, str, dict[str, Any], int]]:
    """Name, model, method, recipe, and how many layers."""
    targets = {"rank": 16, "alpha": 32, "target_modules": "all-linear"}
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "lora": ("lora", {"lora": targets}),
        "qlora": ("qlora", {"lora": {**targets, "adapter_dtype": "bfloat16"}, "quantization": {"type": "nf4", "prepare_kbit": False}}),
        "full": ("full", {}),
        "full-float32": ("full", {"weights_dtype": "float32"}),
        "dora": ("dora", {"lora": {**targets, "rank": 8}}),
    }  # fmt: skip
    tiled, whole = {"loss": "fused_head"}, {"loss": "kernel"}
    kinds: dict[str, dict[str, Any]] = {
        "dpo": {"objective": "dpo", **tiled},
        "dpo-copy": {"objective": {"type": "dpo", "reference": "copy"}, **tiled},
        "dpo-precomputed": {"objective": {"type": "dpo", "reference": "precomputed"}, **tiled, "labelled_tokens": 128},
        "dpo-precomputed-16": {
            "objective": {"type": "dpo", "reference": "precomputed", "precompute_batch_size": 16}, **tiled, "labelled_tokens": 128,
        },
        "kto": {"objective": "kto", "micro_batch_size": 4, **tiled},
        "reward": {"objective": "reward", "loss": "full"},
        "orpo": {"objective": "orpo", **whole},
        "cpo": {"objective": "cpo", **whole},
        "simpo": {"objective": "simpo", **whole},
        "grpo": {"objective": {"type": "grpo"}, "micro_batch_size": 4, "labelled_tokens": 192, **tiled},
        "grpo-scored": {
            "objective": {"type": "grpo", "reference": "adapter", "old_logprobs": True},
            "micro_batch_size": 4, "labelled_tokens": 384, **tiled,
        },
        "rloo": {"objective": "rloo", "micro_batch_size": 4, "labelled_tokens": 192, **tiled},
        **{f"grpo.{loss}": {"objective": "grpo", "micro_batch_size": 4, "labelled_tokens": 192, **tiled} for loss in VARIANTS},
        "ppo": {"objective": {"type": "ppo", "old_logprobs": True}, "micro_batch_size": 4, "labelled_tokens": 384, **tiled},
        "ppo-judged": {
            "objective": {"type": "ppo", "old_logprobs": True, "reference": "absent"}, "micro_batch_size": 4, "labelled_tokens": 256,
            "value": {"model": small_config("qwen2.5-0.5b", 3), "trains": "lora"},
            "reward_model": {"model": small_config("llama-3.2-1b", 3)}, **tiled,
        },
        "ppo-together": {
            "objective": {"type": "ppo"}, "rollout": "transformers", "micro_batch_size": 4, "sequence_length": 256, "labelled_tokens": 128,
            "value": {"together": True}, "reward_model": {"model": small_config("qwen2.5-0.5b", 3)}, "stack": {"trl": "1.12"},
            "max_grad_norm": None,
        },
        "vectors": {"objective": "contrastive", "loss": "full", "micro_batch_size": 16, "sequence_length": 128,
                    "stack": {"accelerate": "1.15"}},
        "vectors-cached": {"objective": {"type": "contrastive", "mini_batch_size": 16}, "loss": "full", "micro_batch_size": 128,
                           "sequence_length": 128, "stack": {"accelerate": "1.15"}},
        "gkd": {"objective": {"type": "distillation", "divergence": "jsd"}, "loss": "full"},
        "gkd-16": {"objective": {"type": "distillation", "divergence": "jsd"}, "loss": "full", "autocast": None},
        "distillation": {"objective": {"type": "distillation"}, "labelled_tokens": 256, "autocast": None, **tiled},
    }  # fmt: skip
    # method and checkpointing of each kind; models take turns
    plan: dict[str, tuple[str, ...]] = {
        "dpo": ("lora", "lora-whole", "qlora", "full", "full-float32", "dora"),
        "dpo-copy": ("full", "full-whole", "lora"),
        "dpo-precomputed": ("lora", "full"),
        "kto": ("lora", "lora-whole", "qlora", "full"),
        "reward": ("lora", "lora-whole", "qlora", "full", "full-float32"),
        "orpo": ("lora", "lora-whole", "full"),
        "cpo": ("lora", "full-whole"),
        "simpo": ("lora", "lora-whole", "full"),
        "grpo": ("lora", "lora-whole", "qlora", "full", "dora"),
        "grpo-scored": ("lora", "qlora"),
        "ppo": ("lora", "lora-whole", "qlora", "full", "full-float32"),
        "ppo-judged": ("lora", "full"),
        "vectors": ("lora-whole", "full-whole"),
        "vectors-cached": ("lora-whole", "lora", "full-whole", "full-float32"),
        "gkd": ("lora", "full"),
        "distillation": ("lora", "lora-whole", "full"),
        "ppo-together": ("lora", "lora-whole", "full"),
        "dpo-precomputed-16": ("lora", "full"),
        "rloo": ("lora", "full"),
        **{f"grpo.{loss}": ("lora",) for loss in VARIANTS},
        "gkd-16": ("lora", "full"),
    }
    models = ("llama-3.2-1b", "qwen2.5-0.5b", "mistral-7b-v0.3", "qwen3-0.6b", "gemma-3-1b")
    turn = 0
    for kind, ways_of_kind in plan.items():
        for way in ways_of_kind:
            method, own = ways[way.removesuffix("-whole")]
            for _ in range(2):
                model = models[turn % len(models)]
                turn += 1
                if kind.startswith("gkd") or (kind == "distillation" and model == "mistral-7b-v0.3"):
                    model = "qwen2.5-0.5b"
                if kind.startswith("ppo") and model == "gemma-3-1b":  # has no class for tokens
                    model = "llama-3.2-1b"
                recipe: dict[str, Any] = {
                    "micro_batch_size": 2, "sequence_length": 512, "padded": True, "gradient_checkpointing": not way.endswith("whole"),
                    "max_grad_norm": 1.0, "stack": {"trl": "1.16"}, **deepcopy(kinds[kind]), **deepcopy(own),
                }  # fmt: skip
                if kind == "grpo-scored" and method == "full":
                    recipe["objective"]["reference"] = "copy"
                if kind in ("gkd", "gkd-16", "distillation"):
                    recipe["teacher"] = {"model": small_config(model, 4)}
                yield f"{kind}/{model}/{way}", model, method, recipe, 2 if model != "gemma-3-1b" else 7


def main(file: str, *names: str) -> int:
    """Trace every case, or those whose name begins so."""
    kernels_of_trl = ("trl.kernels.chunked_logprob", "trl.kernels.logprob_entropy", "trl.kernels.chunked_divergence")
    for module in kernels_of_trl if find_spec("trl.kernels") else ():
        own = vars(import_module(module))
        own.update({name: NoKernel() for name in own if name.endswith("_kernel")})
    seen = set()
    with Path(file).open("a", encoding="utf-8") as out:
        for name, model, method, recipe, layers in cases():
            if name in seen or (names and not name.startswith(names)):
                continue
            seen.add(name)
            config = small_config(model, layers)
            Grpo.variant = name.partition("/")[0].partition(".")[2] or "dapo"
            expected = traced(config, method, recipe)
            row = {
                "name": name,
                "request": {"config": config, "method": method, "recipe": recipe},
                "expected": expected,
            }
            out.write(json.dumps(row, separators=(",", ":")) + "\n")
            out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A recipe in a trainer's own keys: the way back of what the readers do.

A writer says everything that it can. Whether a trainer can say a recipe at all is not decided here: what was written is read
again, and words that come back different are those that it cannot say (`export.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml

from loralens.core.question.objectives import GROUPED
from loralens.core.question.recipe import Recipe
from loralens.planner.deepspeed import zero_words
from loralens.trainers.axolotl import KERNELS, LIGER
from loralens.trainers.litgpt import write_litgpt
from loralens.trainers.table import optimizers
from loralens.trainers.write_objectives import objective_keys
from loralens.trainers.write_torchtune import write_torchtune

Keys = dict[str, Any]
FLASH: Final = {"flash": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}


def optimizer_name(recipe: Recipe) -> str | None:
    """transformers' name of the optimizer; None where it has none."""
    names = optimizers()["values"]
    return next((name for name, word in names.items() if word == recipe.optimizer), None)


def targets_of(recipe: Recipe, every: str) -> Any:
    """Target modules as a list or a text; `every`: the trainer's word for all linear layers."""
    chosen = recipe.lora.target_modules
    if chosen is None:
        return None
    if isinstance(chosen, str):
        return every if chosen == "all-linear" else chosen
    return list(chosen)


def checkpointing_keys(recipe: Recipe) -> Keys:
    """transformers' switches for checkpointing."""
    keys: Keys = {"gradient_checkpointing": recipe.gradient_checkpointing}
    if recipe.checkpoint_reentrant is not None:
        keys["gradient_checkpointing_kwargs.use_reentrant"] = recipe.checkpoint_reentrant
    if recipe.checkpoint_every != 1:
        keys["gradient_checkpointing_kwargs.every_n_layers"] = recipe.checkpoint_every
    if recipe.checkpoint_offload == "cpu":
        keys["gradient_checkpointing_kwargs.offload"] = True
    return keys


def cards(recipe: Recipe) -> Keys:
    """DeepSpeed's object, or FSDP's; how many there are is said to the launcher."""
    p = recipe.parallelism
    if p.strategy.startswith("zero"):
        return {f"deepspeed.zero_optimization.{name}": value for name, value in zero_words(recipe).items()}
    if p.strategy not in ("fsdp", "fsdp2"):
        return {}
    named = {
        "fsdp": "full_shard auto_wrap" + (" offload" if p.offload == "parameters" else ""),
        "fsdp_config.version": 2 if p.strategy == "fsdp2" else 1,
    }
    second = {"fsdp_config.reshard_after_forward": p.reshard_after_forward is not False}
    return named | (second if p.strategy == "fsdp2" else {})


def _arguments(recipe: Recipe, batch: str = "per_device_train_batch_size") -> Keys:
    return {
        batch: recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "optim": optimizer_name(recipe),
        "max_grad_norm": recipe.max_grad_norm or 0.0,
        **({"torch_compile": True} if recipe.compile else {}),
    }


def write_axolotl(model: str, method: str, recipe: Recipe) -> Keys:
    """See `axolotl.read_axolotl`."""
    lora, packing = recipe.lora, recipe.quantization
    keys: Keys = {"base_model": model}
    if method != "full":
        four = packing is not None and packing.type in ("nf4", "fp4")
        keys |= {"adapter": "qlora" if four else "lora", "load_in_4bit": four,
                 "load_in_8bit": packing is not None and packing.type == "int8"}  # fmt: skip
        if packing is not None and four:
            keys |= {"bnb_config_kwargs.bnb_4bit_quant_type": packing.type,
                     "bnb_config_kwargs.bnb_4bit_use_double_quant": packing.double_quant,
                     "bnb_config_kwargs.bnb_4bit_compute_dtype": packing.compute_dtype}  # fmt: skip
        elif packing is not None and packing.type == "gptq4":
            keys["gptq"] = True
        keys |= {"quantize_moe_experts": True} if packing is not None and packing.pack_experts else {}
        keys |= {"lora_r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout,
                 "peft_use_dora": lora.use_dora, "peft_use_rslora": lora.use_rslora}  # fmt: skip
        keys |= {"lora_modules_to_save": list(lora.modules_to_save)} if lora.modules_to_save else {}
        keys |= {"lora_target_parameters": list(lora.target_parameters)} if lora.target_parameters else {}
        if lora.target_modules == "all-linear":
            keys["lora_target_linear"] = True
        elif lora.target_modules is not None:
            keys["lora_target_modules"] = targets_of(recipe, "")
        if lora.adapter_dtype == "bfloat16":
            keys["peft_autocast_adapter_dtype"] = False
        keys |= dict.fromkeys(KERNELS, recipe.fused_kernels == "+lora")
    if recipe.fused_kernels == "yes":
        keys |= dict.fromkeys(LIGER, True)
    keys |= {"micro_batch_size": recipe.micro_batch_size, "sequence_len": recipe.sequence_length,
             "gradient_accumulation_steps": recipe.gradient_accumulation_steps, "sample_packing": not recipe.padded,
             "gradient_checkpointing": recipe.gradient_checkpointing}  # fmt: skip
    if recipe.checkpoint_reentrant is not None:
        keys["gradient_checkpointing_kwargs.use_reentrant"] = recipe.checkpoint_reentrant
    if not recipe.gradient_checkpointing:
        pass  # Axolotl refuses activation_offloading without it
    elif recipe.checkpoint_offload == "cpu":
        keys["activation_offloading"] = "legacy"
    elif recipe.parallelism.offload == "activations":
        keys["activation_offloading"] = True
    keys |= {
        ("bfloat16", "bfloat16"): {"bf16": True},
        ("float16", "float16"): {"bf16": False, "fp16": True},
        ("bfloat16", None): {"bf16": False, "bfloat16": True},
        ("float16", None): {"bf16": False, "float16": True},
    }.get((recipe.weights_dtype, recipe.autocast), {"bf16": False})
    keys |= {"optimizer": optimizer_name(recipe), "max_grad_norm": recipe.max_grad_norm or 0.0,
             "attn_implementation": FLASH[recipe.attention]}  # fmt: skip
    if head := _labels(recipe):
        keys["num_labels"] = head
    liger: Keys = {"plugins": ["axolotl.integrations.liger.LigerPlugin"]}
    if recipe.loss in ("fused", "kernel"):
        keys |= liger | {f"liger_{'fused_linear_' if recipe.loss == 'fused' else ''}cross_entropy": True}
    elif recipe.loss == "chunked":
        keys["chunked_cross_entropy"] = True
    elif recipe.loss == "cut":
        keys["plugins"] = ["axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin", *keys.get("plugins", [])]
    keys |= {"torch_compile": True} if recipe.compile else {}
    return keys | _axolotl_cards(recipe)


def _axolotl_cards(recipe: Recipe) -> Keys:
    """DeepSpeed's object as elsewhere; FSDP in Axolotl's own keys."""
    p = recipe.parallelism
    if not p.strategy.startswith("fsdp"):
        return cards(recipe)
    keys: Keys = {
        "fsdp_version": 2 if p.strategy == "fsdp2" else 1,
        "fsdp_config.offload_params": p.offload == "parameters",
    }
    if p.strategy == "fsdp":
        return {"fsdp": ["full_shard", "auto_wrap"]} | keys
    return keys | {"fsdp_config.reshard_after_forward": p.reshard_after_forward is not False}


def write_llama_factory(model: str, method: str, recipe: Recipe) -> Keys:
    """See `llama_factory.read_llama_factory`."""
    lora, packing = recipe.lora, recipe.quantization
    frozen = method == "full" and recipe.trainable_layers is not None
    keys: Keys = {"model_name_or_path": model, "stage": "sft", "do_train": True,
                  "finetuning_type": "freeze" if frozen else "full" if method == "full" else "lora"}  # fmt: skip
    if frozen:
        keys["freeze_trainable_layers"] = recipe.trainable_layers
    if method != "full":
        targets = targets_of(recipe, "all")
        keys |= {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout,
                 "lora_target": ",".join(targets) if isinstance(targets, list) else targets,
                 "use_dora": lora.use_dora, "use_rslora": lora.use_rslora}  # fmt: skip
        keys |= {"additional_target": ",".join(lora.modules_to_save)} if lora.modules_to_save else {}
        if packing is not None:
            keys["quantization_bit"] = 8 if packing.type == "int8" else 4
            if packing.type in ("nf4", "fp4"):
                keys |= {"quantization_type": packing.type, "double_quantization": packing.double_quant}
    keys |= _arguments(recipe) | {"cutoff_len": recipe.sequence_length, "packing": not recipe.padded}
    keys |= {"disable_gradient_checkpointing": not recipe.gradient_checkpointing,
             "use_reentrant_gc": recipe.checkpoint_reentrant is not False,
             "use_unsloth_gc": recipe.checkpoint_offload == "cpu"}  # fmt: skip
    if (
        recipe.autocast is None
        and recipe.weights_dtype == "bfloat16"
        and (method == "full" or lora.adapter_dtype == "bfloat16")
    ):
        keys["pure_bf16"] = True
    elif recipe.autocast is not None:
        keys["bf16" if recipe.autocast == "bfloat16" else "fp16"] = True
    keys["flash_attn"] = {"flash": "fa2", "sdpa": "sdpa", "eager": "disabled"}[recipe.attention]
    keys["enable_liger_kernel"] = recipe.fused_kernels == "yes" and recipe.loss == "fused"
    return keys | cards(recipe)


def rows_of(method: str, recipe: Recipe) -> Keys:
    """What the rows of a step are, and what is learned from them, in the words of TRL's configs."""
    kind = recipe.objective.type
    if kind in GROUPED:
        return objective_keys(method, recipe)
    packing = {"packing": not recipe.padded} if kind == "sft" else {}
    return {"max_length": recipe.sequence_length, **packing, **objective_keys(method, recipe)}


def write_trl(model: str, method: str, recipe: Recipe) -> Keys:
    """See `trl.read_trl`."""
    lora, packing = recipe.lora, recipe.quantization
    keys: Keys = {"model_name_or_path": model, "dtype": recipe.weights_dtype, "use_peft": method != "full"}
    if method != "full":
        keys |= {"lora_r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout,
                 "lora_target_modules": targets_of(recipe, "all-linear"), "use_dora": lora.use_dora,
                 "use_rslora": lora.use_rslora}  # fmt: skip
        keys |= {"lora_modules_to_save": list(lora.modules_to_save)} if lora.modules_to_save else {}
        keys |= {"lora_target_parameters": list(lora.target_parameters)} if lora.target_parameters else {}
        if packing is not None and packing.type == "int8":
            keys["load_in_8bit"] = True
        elif packing is not None:
            keys |= {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": packing.type,
                "use_bnb_nested_quant": packing.double_quant,
            }
    keys |= _arguments(recipe) | rows_of(method, recipe) | checkpointing_keys(recipe)
    keys |= {"fp16": True} if recipe.autocast == "float16" else {"bf16": recipe.autocast is not None}
    keys |= {"activation_offloading": True} if recipe.parallelism.offload == "activations" else {}
    keys |= {"use_liger_kernel": True} if recipe.fused_kernels == "yes" else {}
    return keys | {"attn_implementation": FLASH[recipe.attention]} | cards(recipe)


def write_ms_swift(model: str, method: str, recipe: Recipe) -> Keys:
    """See `ms_swift.read_ms_swift`."""
    lora, packing = recipe.lora, recipe.quantization
    keys: Keys = {
        "model": model,
        "tuner_type": "full" if method == "full" else "lora",
        "torch_dtype": recipe.weights_dtype,
    }
    if method != "full":
        targets = targets_of(recipe, "all-linear")
        keys |= {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout,
                 "use_dora": lora.use_dora, "use_rslora": lora.use_rslora}  # fmt: skip
        pattern = isinstance(targets, str) and targets != "all-linear"
        keys["target_regex" if pattern else "target_modules"] = targets
        keys |= {"modules_to_save": list(lora.modules_to_save)} if lora.modules_to_save else {}
        keys |= {"lora_dtype": lora.adapter_dtype}
        if packing is not None:
            keys |= {"quant_method": "bnb", "quant_bits": 8 if packing.type == "int8" else 4}
            if packing.type in ("nf4", "fp4"):
                keys |= {"bnb_4bit_quant_type": packing.type, "bnb_4bit_use_double_quant": packing.double_quant,
                         "bnb_4bit_compute_dtype": packing.compute_dtype}  # fmt: skip
    keys |= (
        _arguments(recipe)
        | {"max_length": recipe.sequence_length, "packing": not recipe.padded}
        | checkpointing_keys(recipe)
    )
    keys["attn_impl"] = FLASH[recipe.attention]
    keys["use_liger_kernel"] = recipe.fused_kernels == "yes" and recipe.loss == "fused"
    keys |= {"use_logits_to_keep": False} if recipe.loss == "full" else {}
    keys |= {"task_type": "seq_cls", "num_labels": head} if (head := _labels(recipe)) else {}
    return keys | cards(recipe)


def _labels(recipe: Recipe) -> int | None:
    """Classes of a sequence classifier; None for another head."""
    return recipe.num_labels if recipe.head == "sequence_classification" else None


WRITERS: Final[Mapping[str, Callable[[str, str, Recipe], Keys]]] = {
    "axolotl": write_axolotl,
    "llama-factory": write_llama_factory,
    "trl": write_trl,
    "ms-swift": write_ms_swift,
    "torchtune": write_torchtune,
    "litgpt": write_litgpt,
}


def render(keys: Mapping[str, Any]) -> str:
    """Flat keys as YAML, dotted ones as objects."""
    text: str = yaml.safe_dump(nested(keys), sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


def nested(keys: Mapping[str, Any]) -> Keys:
    """Dotted keys as objects.

    >>> nested({"fsdp_config.fsdp_version": 2, "fsdp": []})
    {'fsdp_config': {'fsdp_version': 2}, 'fsdp': []}
    """
    found: Keys = {}
    for key, value in keys.items():
        *path, last = key.split(".")
        at = found
        for part in path:
            at = at.setdefault(part, {})
        at[last] = value
    return found

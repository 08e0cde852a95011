"""A recipe as a Python script that runs: TRL's, Unsloth's, or transformers' own Trainer with PEFT.

Made-up rows of full length stand in for the data, so that the first step is the one with the most memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from loralens.core.question.objectives import GROUPED
from loralens.core.question.recipe import Recipe
from loralens.trainers.write_objectives import completion_tokens
from loralens.trainers.writing import FLASH, cards, checkpointing_keys, nested, optimizer_name, rows_of, targets_of

TOKENS: Final = "tokens = torch.randint(0, model.get_input_embeddings().num_embeddings, (ROWS, LENGTH)).tolist()\n"
ROWS: Final = TOKENS + 'data = Dataset.from_dict({"input_ids": tokens, "labels": tokens})\n'
MASKED_ROWS: Final = TOKENS + (
    'columns = {"input_ids": tokens, "labels": tokens, "attention_mask": [[1] * LENGTH] * ROWS}\n'
    "data = Dataset.from_dict(columns)\n"
)
PAIRS: Final = (
    'prompts, chosen, rejected = ["a"] * ROWS, [" b" * LENGTH] * ROWS, [" c" * LENGTH] * ROWS  # cut at max_length\n'
    'data = Dataset.from_dict({"prompt": prompts, "chosen": chosen, "rejected": rejected})\n'
)
JUDGED: Final = (
    'prompts, completions = ["a"] * ROWS, [" b" * LENGTH] * ROWS  # cut at max_length\n'
    "labels = [row % 2 == 0 for row in range(ROWS)]\n"
    'data = Dataset.from_dict({"prompt": prompts, "completion": completions, "label": labels})\n'
)
PROMPTS: Final = 'data = Dataset.from_dict({{"prompt": ["a" + " b" * ({prompt} - 1)] * ROWS}})\n'
REWARD: Final = (
    "\ndef reward(completions, **_):\n"
    '    """Longer is better: any reward does where memory is looked at."""\n'
    "    return [float(len(text)) for text in completions]\n\n"
)
DATA: Final = {"sft": ROWS, "dpo": PAIRS, "orpo": PAIRS, "kto": JUDGED, "grpo": PROMPTS, "rloo": PROMPTS}
"""Rows of each objective that a script is written for."""
COUNT: Final = (
    "trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)\n"
    'print(f"trainable parameters: {trainable:,}")\n'
    "trainer.train()\n"
)


class _Code(str):
    """Text that is written without quotes."""


def write_trl_script(model: str, method: str, recipe: Recipe) -> str:
    """`SFTTrainer`, or another objective's trainer, with `LoraConfig`. See `trl.read_python`."""
    kind = recipe.objective.type if recipe.objective.type in DATA else "sft"
    module, name = ("trl.experimental.orpo" if kind == "orpo" else "trl"), kind.upper()
    arguments = _arguments(recipe) | rows_of(method, recipe)
    arguments |= {"bf16": recipe.autocast == "bfloat16", "fp16": recipe.autocast == "float16"}
    arguments |= {"activation_offloading": True} if recipe.parallelism.offload == "activations" else {}
    arguments |= {"use_liger_kernel": True} if recipe.fused_kernels == "yes" else {}
    trainer = {"model": _Code("model"), "args": _Code("args"), "train_dataset": _Code("data")}
    parts = [_head(model, recipe, f"{module} import {name}Config, {name}Trainer", method), _loaded(recipe)]
    if method != "full":
        parts.append(_adapter(recipe))
        trainer["peft_config"] = _Code("adapter")
        if kind in ("dpo", "kto") and recipe.objective.reference == "copy":
            parts.append(_loaded(recipe, "reference"))
            trainer["ref_model"] = _Code("reference")
    if kind in GROUPED:
        parts.append(REWARD)
        trainer["reward_funcs"] = _Code("reward")
        rows = DATA[kind].format(prompt=recipe.sequence_length - completion_tokens(recipe))
    else:
        rows = DATA[kind]
    parts += [
        f"args = {_call(f'{name}Config', arguments)}",
        rows,
        f"trainer = {_call(f'{name}Trainer', trainer)}",
        COUNT,
    ]
    return "\n".join(parts)


def write_transformers_script(model: str, method: str, recipe: Recipe) -> str:
    """transformers' own `Trainer`, with PEFT's adapter around the model. See `transformers_script.read_transformers`."""
    arguments = _arguments(recipe)
    arguments |= {"bf16": recipe.autocast == "bfloat16", "fp16": recipe.autocast == "float16"}
    arguments |= {"use_liger_kernel": True} if recipe.fused_kernels == "yes" and recipe.loss == "fused" else {}
    prepared = method != "full" and recipe.quantization is not None and recipe.quantization.prepare_kbit
    parts = [_head(model, recipe, "transformers import Trainer, TrainingArguments", method, prepared), _loaded(recipe)]
    if prepared:
        switch = {"use_gradient_checkpointing": recipe.gradient_checkpointing}
        parts.append("model = " + _call("prepare_model_for_kbit_training", {"model": _Code("model"), **switch}))
    if method != "full":
        wrapped: dict[str, object] = {"model": _Code("model"), "peft_config": _Code("adapter")}
        if recipe.lora.adapter_dtype != "float32":
            wrapped["autocast_adapter_dtype"] = False
        parts += [_adapter(recipe), "model = " + _call("get_peft_model", wrapped)]
        if recipe.gradient_checkpointing:
            parts.append("model.enable_input_require_grads()\n")
    trainer = {"model": _Code("model"), "args": _Code("args"), "train_dataset": _Code("data")}
    rows = MASKED_ROWS if recipe.padded else ROWS
    parts += ["args = " + _call("TrainingArguments", arguments), rows, "trainer = " + _call("Trainer", trainer), COUNT]
    return "\n".join(parts)


def write_unsloth_script(model: str, method: str, recipe: Recipe) -> str:
    """`FastLanguageModel` with TRL's trainer. See `trl.read_unsloth`."""
    lora, packing = recipe.lora, recipe.quantization
    loaded: dict[str, object] = {
        "model_name": _Code("MODEL"), "max_seq_length": _Code("LENGTH"),
        "load_in_4bit": method != "full" and packing is not None and packing.type == "nf4",
        "load_in_8bit": method != "full" and packing is not None and packing.type == "int8",
    }  # fmt: skip
    switch: bool | str = recipe.gradient_checkpointing
    if switch and recipe.checkpoint_offload == "cpu":
        switch = "unsloth"
    if method == "full":
        loaded |= {"full_finetuning": True, "use_gradient_checkpointing": switch}
    if recipe.weights_dtype == recipe.autocast == "float16":
        loaded["dtype"] = _Code("torch.float16")
    parts = [
        _head(model, recipe, "trl import SFTConfig, SFTTrainer", "", first="from unsloth import FastLanguageModel\n"),
        "model, tokenizer = " + _call("FastLanguageModel.from_pretrained", loaded),
    ]
    arguments = _arguments(recipe, checkpoints=False) | {"max_length": _Code("LENGTH"), "packing": False}
    arguments |= {"bf16": recipe.autocast == "bfloat16", "fp16": recipe.autocast == "float16"}
    if method != "full":
        own: dict[str, object] = {
            "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout, "bias": lora.bias,
            "target_modules": targets_of(recipe, "all-linear"), "use_dora": lora.use_dora, "use_rslora": lora.use_rslora,
            "modules_to_save": list(lora.modules_to_save) or None, "use_gradient_checkpointing": switch,
        }  # fmt: skip
        parts.append("model = " + _call("FastLanguageModel.get_peft_model", own, before="model,"))
    trainer = {"model": _Code("model"), "processing_class": _Code("tokenizer"), "args": _Code("args"),
               "train_dataset": _Code("data")}  # fmt: skip
    parts += ["args = " + _call("SFTConfig", arguments), ROWS, "trainer = " + _call("SFTTrainer", trainer), COUNT]
    return "\n".join(parts)


def _head(model: str, recipe: Recipe, last: str, method: str, prepared: bool = False, first: str = "") -> str:
    names = ["AutoModelForCausalLM"] if method else []
    if method not in ("", "full") and recipe.quantization is not None:
        names.append("BitsAndBytesConfig")
    if last.startswith("transformers "):
        names += last.removeprefix("transformers import ").split(", ")
        last = ""
    peft = ["LoraConfig"] if method not in ("", "full") else []
    peft += ["get_peft_model"] if peft and not last else []
    peft += ["prepare_model_for_kbit_training"] if prepared else []
    lines = ["import torch", "from datasets import Dataset"]
    lines += [f"from peft import {', '.join(peft)}"] if peft else []
    lines += [f"from transformers import {', '.join(names)}"] if names else []
    lines += [f"from {last}"] if last else []
    rows = recipe.micro_batch_size * recipe.gradient_accumulation_steps * recipe.parallelism.gpus
    constants = f"MODEL = {model!r}\nLENGTH = {recipe.sequence_length}\nROWS = {rows}  # of one step\n"
    return first + "\n".join(lines) + "\n\n" + constants


def _loaded(recipe: Recipe, name: str = "model") -> str:
    loaded: dict[str, object] = {
        "dtype": _Code(f"torch.{recipe.weights_dtype}"),
        "attn_implementation": FLASH[recipe.attention],
    }
    packing, text = recipe.quantization, ""
    if packing is not None:
        own: dict[str, object] = {"load_in_8bit": True}
        if packing.type != "int8":
            own = {"load_in_4bit": True, "bnb_4bit_quant_type": packing.type,
                   "bnb_4bit_use_double_quant": packing.double_quant,
                   "bnb_4bit_compute_dtype": _Code(f"torch.{packing.compute_dtype}")}  # fmt: skip
        text = "packing = " + _call("BitsAndBytesConfig", own) if name == "model" else ""
        loaded["quantization_config"] = _Code("packing")
    return text + f"{name} = " + _call("AutoModelForCausalLM.from_pretrained", loaded, before="MODEL,")


def _adapter(recipe: Recipe) -> str:
    lora = recipe.lora
    return "adapter = " + _call(
        "LoraConfig",
        {
            "r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout,
            "target_modules": targets_of(recipe, "all-linear"), "bias": lora.bias, "use_dora": lora.use_dora,
            "use_rslora": lora.use_rslora, "modules_to_save": list(lora.modules_to_save) or None,
            "task_type": "CAUSAL_LM",
        },
    )  # fmt: skip


def _arguments(recipe: Recipe, *, checkpoints: bool = True) -> dict[str, object]:
    keys: dict[str, object] = {
        "output_dir": "out",
        "max_steps": 1,
        "per_device_train_batch_size": recipe.micro_batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "optim": optimizer_name(recipe),
        "max_grad_norm": recipe.max_grad_norm or 0.0,
        "report_to": "none",
    }
    keys |= {"torch_compile": True} if recipe.compile else {}
    return keys | nested((checkpointing_keys(recipe) if checkpoints else {}) | cards(recipe))


def _call(name: str, keywords: Mapping[str, Any], before: str = "") -> str:
    lines = [f"    {before}\n"] if before else []
    lines += [
        f"    {key}={value if isinstance(value, _Code) else repr(value)},\n"
        for key, value in keywords.items()
        if value is not None
    ]
    return f"{name}(\n{''.join(lines)})\n"

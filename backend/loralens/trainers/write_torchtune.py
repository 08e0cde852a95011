"""A recipe as torchtune's YAML: what the reader in `torchtune.py` reads, said. **Source:** torchtune 0.6.1, and bd2a0fc."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

from loralens.core.errors import InvalidInput
from loralens.core.question.model import resolve
from loralens.core.question.recipe import Recipe
from loralens.trainers.table import torchtune_models
from loralens.trainers.torchtune import MLP, OPTIMIZERS, PROJECTIONS

LOSSES: Final = {"chunked": "CEWithChunkedOutputLoss", "linear": "LinearCrossEntropyLoss"}
DTYPES: Final = {"bfloat16": "bf16", "float32": "fp32"}
ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
EVERY: Final = (*ATTENTION, *MLP)


def write_torchtune(model: str, method: str, recipe: Recipe) -> dict[str, object]:
    """See `torchtune.read_torchtune`.

    Raises:
        InvalidInput: torchtune has no builder of this model.
        UnknownModel: nothing has that name.
    """
    builder, tokenizer = _builder(model)
    folder = f"/tmp/{PurePath(model).name}"
    lora, p = recipe.lora, recipe.parallelism
    kind = "" if method == "full" else "qlora_" if recipe.quantization is not None else "lora_"
    family, _, name = builder.partition(".")
    if kind == "qlora_" and family in torchtune_models()["without_qlora"]:
        raise InvalidInput(
            f"torchtune has no builder of {family} with packed weights", field="method", hint="try method=lora"
        )
    keys: dict[str, object] = {"model._component_": f"torchtune.models.{family}.{kind}{name}"}
    if method != "full":
        chosen = EVERY if lora.target_modules == "all-linear" else lora.target_modules or ()
        own = {word: key for key, word in PROJECTIONS.items()}
        keys |= {
            "model.lora_attn_modules": [own.get(one, one) for one in ATTENTION if one in chosen],
            "model.apply_lora_to_mlp": all(one in chosen for one in MLP),
            "model.apply_lora_to_output": "lm_head" in chosen,
            "model.lora_rank": lora.rank, "model.lora_alpha": lora.alpha, "model.lora_dropout": lora.dropout,
            "model.use_dora": lora.use_dora,
        }  # fmt: skip
    keys |= {
        "tokenizer._component_": f"torchtune.models.{tokenizer}", "tokenizer.path": f"{folder}/tokenizer.model",
        "tokenizer.max_seq_len": recipe.sequence_length,
        "checkpointer._component_": "torchtune.training.FullModelHFCheckpointer", "checkpointer.checkpoint_dir": folder,
        "batch_size": recipe.micro_batch_size, "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
    }  # fmt: skip
    keys |= _optimizer(recipe.optimizer) | {"optimizer_in_bwd": recipe.optimizer_in_backward}
    keys["loss._component_"] = (
        f"torchtune.modules.loss.{LOSSES[recipe.loss]}" if recipe.loss in LOSSES else "torch.nn.CrossEntropyLoss"
    )
    keys |= {"dtype": DTYPES[recipe.weights_dtype]} if recipe.weights_dtype in DTYPES else {}
    keys |= {"enable_activation_checkpointing": recipe.gradient_checkpointing,
             "enable_activation_offloading": p.offload == "activations",
             "clip_grad_norm": recipe.max_grad_norm, "compile": recipe.compile}  # fmt: skip
    return keys | ({"fsdp_cpu_offload": p.offload == "parameters"} if p.gpus > 1 else {})


def _builder(model: str) -> tuple[str, str]:
    """The builder's path under `torchtune.models`, and its tokenizer's."""
    known = torchtune_models()
    found = known["builders"].get(resolve(model).id)
    if found is None:
        raise InvalidInput(
            f"torchtune has no builder of {model[:80]!r}",
            field="model",
            hint="one of " + ", ".join(list(known["builders"])[-8:]) + ", …",
        )
    if found.endswith("_base") and "instruct" in model.lower():
        found = found.removesuffix("_base") + "_instruct"
    family = found.partition(".")[0]
    return found, known["tokenizers"].get(family, f"{family}.{family}_tokenizer")


def _optimizer(word: str) -> dict[str, object]:
    if word in ("adamw_fused", "adamw_foreach"):
        return {"optimizer._component_": "torch.optim.AdamW", "optimizer.fused": word == "adamw_fused"}
    path = next((path for path, meant in OPTIMIZERS.items() if meant == word), None)
    return {"optimizer._component_": path or "torch.optim.AdamW"}

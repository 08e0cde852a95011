"""What each flat recipe name means, in one sentence: the help of the command line and of the OpenAPI schema.

Ranges and defaults are not repeated here: `recipe.py` holds and checks them, and defaults are read from it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from loralens.core.question import recipe

Kind = Literal["integer", "number", "boolean", "text"]


@dataclass(frozen=True, slots=True)
class Word:
    """One flat name: how it is typed, which words it takes (if it is a choice) and what it means.

    `common` words are the few that most questions change; help shows them first.
    """

    name: str
    kind: Kind
    help: str
    choices: tuple[str, ...] = ()
    common: bool = False


WORDS: Final = (
    Word("micro_batch_size", "integer", "Samples per GPU and forward pass.", common=True),
    Word("sequence_length", "integer", "Tokens per sample.", common=True),
    Word("gradient_accumulation_steps", "integer", "Forward and backward passes per optimizer step.", common=True),
    Word("padded", "boolean", "An attention mask is passed, as with padded batches."),
    Word("weights_dtype", "text", "How base weights are held.", recipe.DTYPES),
    Word("autocast", "text", "Compute dtype under autocast, or none.", ("bfloat16", "float16", "none")),
    Word("optimizer", "text", "Optimizer and its implementation.", recipe.OPTIMIZERS, common=True),
    Word("gradient_checkpointing", "boolean",
         "Recompute activations in the backward pass instead of keeping them.", common=True),
    Word("checkpoint_every", "integer", "Layers per checkpointed segment."),
    Word("checkpoint_reentrant", "boolean", "Use torch's reentrant checkpoint; none: what the library defaults to."),
    Word("checkpoint_offload", "text", "Where the kept inputs of checkpointed segments wait.", ("none", "cpu")),
    Word("attention", "text", "Attention implementation.", ("sdpa", "flash", "eager"), common=True),
    Word("optimizer_in_backward", "boolean", "Step inside the backward pass, so that no gradient outlives its layer."),
    Word("max_grad_norm", "number", "Clip gradients at this norm; none: no clipping."),
    Word("loss", "text", "How the cross entropy over the vocabulary is computed.", recipe.LOSSES, common=True),
    Word("fused_kernels", "text", "Fused norm and rotary kernels; +lora fuses LoRA too.", ("false", "true", "+lora")),
    Word("compile", "boolean", "torch.compile."),
    Word("trainable_layers", "integer", "Train only this many of the last layers; none: all."),
    Word("rank", "integer", "Inner dimension of the LoRA update B·A.", common=True),
    Word("alpha", "number", "Numerator of the LoRA scaling alpha / rank."),
    Word("dropout", "number", "LoRA dropout."),
    Word("target_modules", "text",
         "Layers with an adapter: names with commas, a regular expression, or all-linear; none: the family's usual ones.",
         common=True),
    Word("adapter_dtype", "text", "How adapter weights are held.", recipe.DTYPES),
    Word("use_dora", "boolean", "DoRA: learn a magnitude per output feature too."),
    Word("use_rslora", "boolean", "Scale by alpha / sqrt(rank)."),
    Word("bias", "text", "Which biases train.", ("none", "all", "lora_only")),
    Word("modules_to_save", "text", "Modules trained in full beside the adapter, with commas."),
    Word("double_quant", "boolean", "Quantize the quantization constants too."),
    Word("compute_dtype", "text", "Dtype into which quantized weights are unpacked.", recipe.DTYPES),
    Word("prepare_kbit", "boolean", "Prepare as PEFT's prepare_model_for_kbit_training does."),
    Word("group_size", "integer", "Weights per scale (GPTQ)."),
    Word("quantization", "text", "How the frozen base is packed.", (*recipe.QUANTIZATIONS, "none"), common=True),
    Word("gpus", "integer", "GPUs that share the work.", common=True),
    Word("strategy", "text", "How they share it.", recipe.STRATEGIES, common=True),
    Word("offload", "text", "What is kept in host memory.", ("none", "optimizer", "parameters")),
)  # fmt: skip

ALIASES: Final = {
    "batch_size": "micro_batch_size",
    "per_device_train_batch_size": "micro_batch_size",
    "seq_len": "sequence_length",
    "seq_length": "sequence_length",
    "max_seq_length": "sequence_length",
    "max_length": "sequence_length",
    "grad_accum": "gradient_accumulation_steps",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lora_target_modules": "target_modules",
    "quant": "quantization",
}
"""What other programs call some words; the command line understands these too."""


def default(name: str) -> Any:
    """The value that a flat name has when nobody gives it, as JSON.

    >>> default("rank"), default("quantization")
    (8, None)
    """
    standard = recipe.Recipe().to_dict()
    if name == "quantization":
        return None
    if name in standard:
        return standard[name]
    group = next(iter(recipe.nested({name: 0})))
    values = standard[group] if standard[group] is not None else asdict(recipe.Quantization())
    return values[name]

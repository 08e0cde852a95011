"""LoRA: the base is frozen, low-rank adapters on chosen linear layers train."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.heads import owned
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import Experts, Router
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.methods.adapters import settled
from loralens.core.methods.base import (
    SHORT,
    Prepared,
    hold_weights,
    keeps_float32,
    parameters,
    precision_text,
)
from loralens.core.methods.embeddings import hooked
from loralens.core.methods.injection import inject
from loralens.core.methods.packing import FourBit, packing_for
from loralens.core.methods.skipped import skipped_layers, unmatched
from loralens.core.parallel.table import strategy_of
from loralens.core.question.packings import BY_GROUPS
from loralens.core.tape.checkpoint import is_reentrant
from loralens.core.tape.parameter import Parameter

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.quantization import Quantization
    from loralens.core.question.recipe import Lora, Recipe


def prepare(root: Root, recipe: Recipe) -> Prepared:
    """Freeze the base and inject adapters; on a quantized base when the recipe names one."""
    if recipe.quantization is not None:
        return prepare_packed(root, recipe, recipe.quantization)
    asked = recipe = replace(recipe, lora=with_task_head(root, settled(root, recipe.lora)))
    recipe = as_held(recipe)
    assumptions = inject(root, recipe)
    hold_weights(root, recipe, trainable=False)
    train_biases(root, recipe)
    match_copies(root)
    weights, _, cast = precision_text(recipe).partition(", ")
    prepared = Prepared(
        f"{weights}, {SHORT[recipe.lora.adapter_dtype]} adapters, {cast}",
        asked,
        assumptions,
        input_gradients=recipe.gradient_checkpointing,
        checkpointing=recipe.gradient_checkpointing,
    )
    return hooked(root, prepared)


def with_task_head(root: Root, lora: Lora) -> Lora:
    """With the head among `modules_to_save`, as PEFT has it for every task type but language modelling and feature extraction."""
    names = owned(root, root.task.kind) if root.task else ()
    return replace(lora, modules_to_save=tuple(dict.fromkeys((*lora.modules_to_save, *names))))


def as_held(recipe: Recipe) -> Recipe:
    """With the adapters' dtype under the recipe's strategy, which may cast the whole model."""
    dtype = strategy_of(recipe, adapters=True).adapter_dtype(recipe.lora.adapter_dtype, recipe.weights_dtype)
    return replace(recipe, lora=replace(recipe.lora, adapter_dtype=dtype))


def prepare_packed(root: Root, recipe: Recipe, quantization: Quantization) -> Prepared:
    """Add adapters, then pack every linear layer but the head.

    Source: transformers 5.23 `get_keys_to_not_convert` leaves the output embedding unpacked; PEFT 0.21
    `prepare_model_for_kbit_training` raises all that is not packed to float32.
    """
    asked = recipe = replace(recipe, lora=with_task_head(root, settled(root, recipe.lora)), quantization=quantization)
    recipe = as_held(recipe)
    assumptions = inject(root, recipe)
    hold_weights(root, recipe, trainable=False)
    train_biases(root, recipe)
    if quantization.pack_experts:
        _no_adapted_experts(root)
    cast_biases = pack(root, recipe, quantization)
    assumptions += unmatched(root, quantization)
    # PEFT 0.21.2 utils/other.py: beside what GPTQ, AWQ or HQQ packed all keeps its dtype
    raised = quantization.prepare_kbit and quantization.type not in BY_GROUPS
    raised = raised and strategy_of(recipe, adapters=True).prepares_k_bit
    if raised:
        _raise_rest(root, recipe, cast_biases)
    assumptions += of_experts(root, packed=quantization.pack_experts, raised=raised)
    match_copies(root)
    double = ", double quantization" if quantization.double_quant and quantization.type in ("nf4", "fp4") else ""
    kbit = ", the rest raised to fp32" if raised else ""
    cast = f"{SHORT[recipe.autocast]} autocast" if recipe.autocast else "no autocast"
    prepared = Prepared(
        f"{quantization.type} base{double}{kbit}, {SHORT[recipe.lora.adapter_dtype]} adapters, {cast}",
        asked,
        assumptions,
        # k-bit preparation asks for it in the reentrant form only (PEFT utils/other.py), transformers where tokens are read
        input_gradients=recipe.gradient_checkpointing and (root.reads_tokens or is_reentrant(recipe) or not raised),
        checkpointing=recipe.gradient_checkpointing,
    )
    return hooked(root, prepared)


def _no_adapted_experts(root: Root) -> None:
    if any(isinstance(module, Experts) and module.adapter for _, module, _ in root.distinct()):
        raise UnsupportedArchitecture(
            "adapters on experts that are packed are not modelled",
            field="quantization.pack_experts",
            hint="leave the experts out of target_modules and target_parameters, or out of the packing",
        )


def of_experts(root: Root, *, packed: bool, raised: bool) -> list[str]:
    """What is to be said of experts that are stacked in one tensor, which quantizers of linear layers pass over."""
    stacked = [(parameter.numel[0] * places) for _, module, places in root.distinct() if module.stacked
               for _, parameter in module.own_parameters()]  # fmt: skip
    if not stacked:
        return []
    packable = any(isinstance(module, Experts) for _, module, _ in root.distinct())
    if packed and packable:
        return ["experts are packed too; a layer's are unpacked whole and held until its backward (assumption)"]
    total = sum(parameter.numel[0] * places for _, module, places in root.distinct()
                for _, parameter in module.own_parameters() if parameter.role == "base")  # fmt: skip
    share = 100 * sum(stacked) // total
    held = ", and are raised to float32" if raised else ""
    said = f"experts, {share}% of the weights, are stacked tensors and no linear layers, so they are not packed{held}"
    ways = [
        *(["pack_experts=true"] if packable else []),
        *(["prepare_kbit=false"] if raised else []),
        *(["stack.transformers=4.57"] if root.separable else []),
    ]
    return [f"{said}; ways out: {', '.join(ways)}" if ways else said]


def pack(root: Root, recipe: Recipe, quantization: Quantization) -> set[int]:
    """Pack every linear layer but those to skip, and stacked experts if asked; returns the biases whose dtype is settled.

    Source: bitsandbytes 0.50 nn/modules.py `Linear4bit.forward`: the first forward casts the bias itself, for good.
    """
    settled_biases = set()
    packing, skipped = packing_for(quantization, recipe), skipped_layers(root, quantization)
    for name, module, _ in root.distinct():
        if quantization.pack_experts and isinstance(module, Experts):
            module.gate_up_proj.packing = module.down_proj.packing = packing
        if isinstance(module, Router) and module.linear:
            module.weight.packing = packing
        if not isinstance(module, Linear) or id(module) in skipped or module.weight.role != "base":
            continue
        if keeps_float32(root, name):
            module.weight.dtype = "float32"
        elif module.packable:
            module.weight.packing = packing
            if module.bias is not None and isinstance(packing, FourBit):
                module.bias.dtype = packing.compute_dtype
                settled_biases.add(id(module.bias))
    return settled_biases


def _raise_rest(root: Root, recipe: Recipe, cast_biases: set[int]) -> None:
    """Raise to float32 what is not packed; TRL puts embeddings and head back (`peft_module_casting_to_bf16`)."""
    trl = any(library == "trl" for library, _ in recipe.stack)
    for _, parameter in parameters(root):
        put_back = trl and len(parameter.shape) > 1
        base = parameter.role == "base" and parameter.packing is None
        if base and id(parameter) not in cast_biases and not put_back:
            parameter.dtype = "float32"


def match_copies(root: Root) -> None:
    """Hold every trainable copy in its original's dtype."""
    for _, module, _ in root.distinct():
        if module.saved is not None:
            originals = dict(_own(module))
            for name, parameter in _own(module.saved):
                parameter.dtype = originals[name].dtype


def _own(module: Module) -> list[tuple[str, Parameter]]:
    return [
        (f"{path}.{own}", parameter)
        for path, part in module.walk()
        if path.split(".")[0] != "saved"
        for own, parameter in part.own_parameters()
    ]


def train_biases(root: Root, recipe: Recipe) -> None:
    """PEFT's `bias`: all of them, or those of adapted layers."""
    if recipe.lora.bias == "none":
        return
    for _, module, _ in root.distinct():
        for own, parameter in module.own_parameters():
            adapted = module.adapter is not None
            if own == "bias" and (recipe.lora.bias == "all" or (recipe.lora.bias == "lora_only" and adapted)):
                parameter.trainable = True

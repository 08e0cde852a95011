"""LoRA: the base is frozen, low-rank adapters on chosen linear layers train."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.module import FusedLinear, Linear, Module
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.methods import experts
from loralens.core.methods.adapters import PEFT_DEFAULTS, DoraAdapter, LoraAdapter, rank_of, selector, settled
from loralens.core.methods.base import (
    SHORT,
    Prepared,
    for_each,
    hold_weights,
    keeps_float32,
    parameters,
    precision_text,
)
from loralens.core.methods.merged import MergedAdapter
from loralens.core.methods.packing import FourBit, packing_for
from loralens.core.question import patterns
from loralens.core.tape.checkpoint import is_reentrant
from loralens.core.tape.parameter import Parameter

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.recipe import Quantization, Recipe
    from loralens.core.tape.parameter import Packing

DEEPSPEED = ("zero1", "zero2", "zero3")


def prepare(root: Root, recipe: Recipe) -> Prepared:
    """Freeze the base and inject adapters; on a quantized base when the recipe names one."""
    if recipe.quantization is not None:
        return prepare_packed(root, recipe, recipe.quantization)
    asked = recipe = replace(recipe, lora=settled(root, recipe.lora))
    recipe = as_held(recipe)
    assumptions = inject(root, recipe)
    hold_weights(root, recipe, trainable=False)
    train_biases(root, recipe)
    match_copies(root)
    weights, _, cast = precision_text(recipe).partition(", ")
    return Prepared(
        f"{weights}, {SHORT[recipe.lora.adapter_dtype]} adapters, {cast}",
        asked,
        assumptions,
        input_gradients=recipe.gradient_checkpointing,
        checkpointing=recipe.gradient_checkpointing,
    )


def as_held(recipe: Recipe) -> Recipe:
    """DeepSpeed casts the whole model, adapters too, to its 16-bit dtype (runtime/engine.py, `_configure_distributed_model`)."""
    if recipe.parallelism.strategy in DEEPSPEED and recipe.weights_dtype != "float32":
        return replace(recipe, lora=replace(recipe.lora, adapter_dtype=recipe.weights_dtype))
    return recipe


def prepare_packed(root: Root, recipe: Recipe, quantization: Quantization) -> Prepared:
    """Add adapters, then pack every linear layer but the head.

    Source: transformers 5.23 `get_keys_to_not_convert` leaves the output embedding unpacked; PEFT 0.21
    `prepare_model_for_kbit_training` raises all that is not packed to float32.
    """
    asked = recipe = replace(recipe, lora=settled(root, recipe.lora), quantization=quantization)
    recipe = as_held(recipe)
    assumptions = inject(root, recipe)
    hold_weights(root, recipe, trainable=False)
    train_biases(root, recipe)
    cast_biases = _pack(root, packing_for(quantization, recipe))
    # with sharded weights TRL and transformers leave k-bit preparation out (`is_sharded_qlora`); DeepSpeed undoes it
    raised = quantization.prepare_kbit and recipe.parallelism.strategy not in ("fsdp", *DEEPSPEED)
    if raised:
        _raise_rest(root, recipe, cast_biases)
    match_copies(root)
    double = ", double quantization" if quantization.double_quant and quantization.type in ("nf4", "fp4") else ""
    kbit = ", the rest raised to fp32" if raised else ""
    cast = f"{SHORT[recipe.autocast]} autocast" if recipe.autocast else "no autocast"
    return Prepared(
        f"{quantization.type} base{double}{kbit}, {SHORT[recipe.lora.adapter_dtype]} adapters, {cast}",
        asked,
        assumptions,
        # k-bit preparation asks for it in the reentrant form only (PEFT utils/other.py), transformers where tokens are read
        input_gradients=recipe.gradient_checkpointing and (root.reads_tokens or is_reentrant(recipe) or not raised),
        checkpointing=recipe.gradient_checkpointing,
    )


def _pack(root: Root, packing: Packing) -> set[int]:
    """Pack every linear layer but the head; returns the biases whose dtype is settled.

    Source: bitsandbytes 0.50 nn/modules.py `Linear4bit.forward`: the first forward casts the bias itself, for good.
    """
    settled_biases = set()
    spared = None if root.framework == "litgpt" else root.head  # Fabric's plugin replaces every linear layer
    for name, module, _ in root.distinct():
        if not isinstance(module, Linear) or module is spared or module.weight.role != "base":
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


def inject(root: Root, recipe: Recipe) -> list[str]:
    """Put an adapter on every target and a trainable copy beside every module to save; returns the assumptions made.

    Raises:
        InvalidInput: no module matches `target_modules` or one of `modules_to_save`.
        UnsupportedArchitecture: adapters on this family are not modelled.
    """
    if root.no_adapters:
        raise UnsupportedArchitecture(root.no_adapters, field="config.model_type", hint="ask for method=full")
    lora, expert_weights = experts.translate(root, recipe.lora)
    wanted = selector(root, lora)
    patterns.affordable(
        [key for key, _ in lora.rank_pattern],
        [name for name, _ in root.walk()] if lora.rank_pattern else [],
        "lora.rank_pattern",
    )
    found: list[str] = []
    linears: dict[str, None] = {}
    saved: set[str] = set()

    def signature(name: str, module: Module) -> str:
        if isinstance(module, Linear):
            linears[name.rsplit(".", 1)[-1]] = None
        if isinstance(module, FusedLinear):
            around = name.rpartition(".")[0]
            parts = [part for part in module.parts if wanted(f"{around}.{part}", module)]
            linears.update(dict.fromkeys(module.parts))
            found.extend(f"{around}.{part}" for part in parts)
            return f"parts {' '.join(parts)}" if parts else ""
        if wanted(name, module):
            _allowed(root, name)
            found.append(name)
            return f"adapter of rank {rank_of(name, lora)}"
        if stacked := experts.targeted(module, expert_weights):
            found.append(name)
            return f"experts {' '.join(stacked)}"
        for key in lora.modules_to_save:
            if name == key or name.endswith("." + key):
                saved.add(key)
                return "saved"
        return ""

    def apply(name: str, module: Module, sign: str) -> None:
        if sign == "saved":
            module.saved = trainable_copy(module)
        elif sign.startswith("experts "):
            module.adapter = experts.ExpertAdapter.on(module, name, tuple(sign.split()[1:]), lora)
        elif sign.startswith("parts ") and isinstance(module, FusedLinear):
            module.adapter = MergedAdapter.for_parts(module, tuple(sign.split()[1:]), lora)
        elif sign and isinstance(module, Linear):
            module.adapter = (DoraAdapter if lora.use_dora else LoraAdapter).on(module, name, lora)

    for_each(root, signature, apply)
    missing = set(lora.modules_to_save) - saved
    if not found or missing:
        raise InvalidInput(
            f"no module of this model is called {', '.join(sorted(missing))}"
            if missing
            else f"no linear layer of this model matches target_modules {lora.target_modules!r}",
            field="lora.modules_to_save" if missing else "lora.target_modules",
            hint=f"this model has: {', '.join(linears)}; or all-linear",
        )
    assumptions = []
    if recipe.lora.target_modules == root.default_targets != ("q_proj", "v_proj"):
        has = "PEFT's default" if root.model_type in PEFT_DEFAULTS else "usual; PEFT has no default"
        assumptions.append(f"target modules {', '.join(root.default_targets)}: {has} for {root.model_type}")
    if root.framework and lora.use_dora:
        assumptions.append(f"DoRA as PEFT computes it, not {root.framework}")
    return assumptions


def _allowed(root: Root, name: str) -> None:
    """Source: PEFT 0.21 tuners/tuners_utils.py, `_check_lora_target_modules_mamba`."""
    own = name.rsplit(".", 1)[-1]
    if own in root.refused_targets:
        raise InvalidInput(
            f"PEFT refuses adapters on {own} in this family: its kernels use the weight without calling the layer",
            field="lora.target_modules",
            hint=f"name other layers, without {own}; all-linear would take it in too",
        )


def trainable_copy(module: Module) -> Module:
    """A copy of a module that trains beside the frozen original (PEFT's `ModulesToSaveWrapper`)."""
    copy = deepcopy(module)
    for _, part in copy.walk():
        for _, parameter in part.own_parameters():
            parameter.role, parameter.trainable = "adapter", True
    return copy


def match_copies(root: Root) -> None:
    """Hold every trainable copy in its original's dtype."""
    for _, module, _ in list(root.distinct()):
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
    for _, module, _ in root.distinct():
        for own, parameter in module.own_parameters():
            adapted = getattr(module, "adapter", None) is not None
            if own == "bias" and (recipe.lora.bias == "all" or (recipe.lora.bias == "lora_only" and adapted)):
                parameter.trainable = True

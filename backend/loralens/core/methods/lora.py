"""LoRA: the base is frozen, low-rank adapters on chosen linear layers train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.module import Linear, Module
from loralens.core.errors import InvalidInput
from loralens.core.lora import LoraAdapter, selector
from loralens.core.methods.base import SHORT, Prepared, for_each, hold_weights, parameters, precision_text
from loralens.core.methods.packing import packing_for

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.recipe import Quantization, Recipe


def prepare(root: Root, recipe: Recipe) -> Prepared:
    """Freeze the base and inject adapters; on a quantized base when the recipe names one."""
    if recipe.quantization is not None:
        return prepare_packed(root, recipe, recipe.quantization)
    assumptions = inject(root, recipe)
    hold_weights(root, recipe, trainable=False)
    weights, _, cast = precision_text(recipe).partition(", ")
    return Prepared(
        f"{weights}, {SHORT[recipe.lora.adapter_dtype]} adapters, {cast}",
        assumptions,
        input_gradients=recipe.gradient_checkpointing,
        checkpointing=recipe.gradient_checkpointing,
    )


def prepare_packed(root: Root, recipe: Recipe, quantization: Quantization) -> Prepared:
    """Add adapters, then pack every linear layer but the head.

    Source: transformers 5.23 `get_keys_to_not_convert` leaves the output embedding unpacked; PEFT 0.21
    `prepare_model_for_kbit_training` raises all that is not packed to float32.
    """
    assumptions = inject(root, recipe)
    hold_weights(root, recipe, trainable=False)
    packing = packing_for(quantization)
    for _, module in root.walk():
        if isinstance(module, Linear) and module is not root.head:
            module.weight.packing = packing
    # with sharded weights TRL and transformers leave k-bit preparation out (`is_sharded_qlora`)
    raised = quantization.prepare_kbit and recipe.parallelism.strategy not in ("fsdp", "zero3")
    if raised:
        # TRL puts embeddings and head back into 16 bits (`peft_module_casting_to_bf16`), the norms stay float32
        trl = any(library == "trl" for library, _ in recipe.stack)
        for _, parameter in parameters(root):
            matrix = len(parameter.shape) > 1
            if parameter.role == "base" and parameter.packing is None and not (trl and matrix):
                parameter.dtype = "float32"
    double = ", double quantization" if quantization.double_quant and quantization.type in ("nf4", "fp4") else ""
    kbit = ", the rest raised to fp32" if raised else ""
    cast = f"{SHORT[recipe.autocast]} autocast" if recipe.autocast else "no autocast"
    return Prepared(
        f"{quantization.type} base{double}{kbit}, {SHORT[recipe.lora.adapter_dtype]} adapters, {cast}",
        assumptions,
        input_gradients=recipe.gradient_checkpointing,
        checkpointing=recipe.gradient_checkpointing,
    )


def inject(root: Root, recipe: Recipe) -> list[str]:
    """Put an adapter on every target; returns the assumptions made.

    Raises:
        InvalidInput: no module matches `target_modules`.
    """
    lora = recipe.lora
    wanted = selector(root, lora)
    found: list[str] = []
    names: dict[str, None] = {}

    def signature(name: str, module: Module) -> bool:
        if isinstance(module, Linear):
            names[name.rsplit(".", 1)[-1]] = None
        if wanted(name, module):
            found.append(name)
            return True
        return False

    def apply(name: str, module: Module, chosen: object) -> None:
        if chosen and isinstance(module, Linear):
            adapter = LoraAdapter.on(module, name, lora)
            module.adapter = adapter

    for_each(root, signature, apply)
    if not found:
        raise InvalidInput(
            f"no linear layer of this model matches target_modules {lora.target_modules!r}",
            field="lora.target_modules",
            hint=f"this model has: {', '.join(names)}; or all-linear",
        )
    if not lora.target_modules_given and tuple(root.default_targets) != ("q_proj", "v_proj"):
        return [f"target modules not given: {', '.join(root.default_targets)} (PEFT's default for this family)"]
    return []

"""QLoRA: LoRA on a base packed to 4 bits (Dettmers et al. 2023, arXiv:2305.14314; bitsandbytes 0.50, PEFT 0.21)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.module import Linear
from loralens.core.methods.base import SHORT, Prepared, hold_weights, parameters
from loralens.core.methods.lora import inject
from loralens.core.methods.packing import packing_for
from loralens.core.recipe import Quantization

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.recipe import Recipe


def prepare(root: Root, recipe: Recipe) -> Prepared:
    """Add adapters, then pack every linear layer but the head.

    Source: transformers 5.23 `get_keys_to_not_convert` leaves the output embedding unpacked; PEFT 0.21
    `prepare_model_for_kbit_training` raises all that is not packed to float32.
    """
    quantization = recipe.quantization or Quantization()
    assumptions = inject(root, recipe)
    hold_weights(root, recipe, trainable=False)
    packing = packing_for(quantization)
    for _, module in root.walk():
        if isinstance(module, Linear) and module is not root.head:
            module.weight.packing = packing
    if quantization.prepare_kbit:
        for _, parameter in parameters(root):
            if parameter.role == "base" and parameter.packing is None:
                parameter.dtype = "float32"
    double = ", double quantization" if quantization.double_quant and quantization.type in ("nf4", "fp4") else ""
    kbit = ", the rest raised to fp32" if quantization.prepare_kbit else ""
    cast = f"{SHORT[recipe.autocast]} autocast" if recipe.autocast else "no autocast"
    return Prepared(
        f"{quantization.type} base{double}{kbit}, {SHORT[recipe.lora.adapter_dtype]} adapters, {cast}",
        assumptions,
        input_gradients=recipe.gradient_checkpointing,
        checkpointing=recipe.gradient_checkpointing,
    )

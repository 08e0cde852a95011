"""QLoRA: LoRA on a base packed to 4 bits (Dettmers et al. 2023, arXiv:2305.14314; bitsandbytes 0.50, PEFT 0.21)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.methods.lora import prepare_packed
from loralens.core.question.quantization import Quantization

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.methods.base import Prepared
    from loralens.core.question.recipe import Recipe


def prepare(root: Root, recipe: Recipe) -> Prepared:
    """LoRA on an NF4 base, unless the recipe names another packing."""
    return prepare_packed(root, recipe, recipe.quantization or Quantization())

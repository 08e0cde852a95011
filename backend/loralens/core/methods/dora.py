"""DoRA: LoRA that also trains each output row's magnitude (Liu et al. 2024, arXiv:2402.09353; PEFT 0.21)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from loralens.core.methods import lora

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.methods.base import Prepared
    from loralens.core.question.recipe import Recipe


def prepare(root: Root, recipe: Recipe) -> Prepared:
    """LoRA with `use_dora`."""
    return lora.prepare(root, dataclasses.replace(recipe, lora=dataclasses.replace(recipe.lora, use_dora=True)))

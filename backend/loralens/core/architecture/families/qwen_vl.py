"""The language models of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: Qwen2's and Qwen3's, turned by three kinds of position.

Source: transformers 5.23, models/{qwen2_vl,qwen2_5_vl,qwen3_vl,qwen3_vl_moe}/modeling_*.py.
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.config import Config
from loralens.core.architecture.families.llama import Qwen2, Qwen3
from loralens.core.architecture.families.mixtral import Qwen3Moe
from loralens.core.question.recipe import Recipe

POSITIONS: Final = "text alone: rotary tables for time, height and width are taken as one, as if no picture were there"


class Qwen2VLText(Qwen2):
    """Qwen2; sliding layers by index where a window is used."""

    kv_heads = 8

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How positions are taken."""
        return [*super().assumptions(recipe), POSITIONS]


class Qwen3VLText(Qwen3):
    """Qwen3."""

    kv_heads = 32

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """None."""
        return (None,) * layers

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How positions are taken."""
        return [*super().assumptions(recipe), POSITIONS]


class Qwen3VLMoeText(Qwen3Moe):
    """Qwen3's experts, under defaults of its own."""

    # PEFT 0.21 turns names into stacked experts by the outer model_type, and has no entry for qwen3_vl_moe
    expert_targets = None

    def __init__(self, config: Config) -> None:
        heads = config.integer("num_attention_heads")
        defaults = {
            "num_key_value_heads": 16,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "tie_word_embeddings": True,
            "head_dim": max(1, config.integer("hidden_size") // heads),
        }
        # null means the default here
        super().__init__(config.over({name: value for name, value in defaults.items() if not config.has(name)}))

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How positions are taken."""
        return [*super().assumptions(recipe), POSITIONS]

"""The language models of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: Qwen2's and Qwen3's, turned by three kinds of position.

Source: transformers 5.23, models/{qwen2_vl,qwen2_5_vl,qwen3_vl,qwen3_vl_moe}/modeling_*.py.
"""

from __future__ import annotations

from dataclasses import replace

from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.families.llama import Qwen2, Qwen3
from loralens.core.architecture.families.mixtral import Qwen3Moe
from loralens.core.architecture.families.qwen3_vl import deepened
from loralens.core.architecture.families.qwen_positions import section_tables
from loralens.core.architecture.module import Module
from loralens.core.architecture.shape import Shape
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class Qwen2VLText(Qwen2):
    """Qwen2; sliding layers by index where a window is used."""

    kv_heads = 8

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """By three kinds of position."""
        call.shared["rotary"] = section_tables(t, hidden, call, self.s.rotated)


class Deepened:
    """Qwen3-VL's own: interleaved angles, and features of the tower added behind the first layers."""

    s: Shape

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """By three kinds of position, whose angles take each other's places."""
        call.shared["rotary"] = section_tables(t, hidden, call, self.s.rotated, interleaved=True)

    def run_layers(
        self, t: Tape, name: str, layers: list[Module], hidden: Tensor, call: Call, *, checkpointing: bool
    ) -> Tensor:
        """One layer at a time while there are features left."""
        features: list[Tensor] = call.beside or []
        call = replace(call, beside=None)
        for index, extra in enumerate(features):
            here = layers[index : index + 1]
            hidden = walk_stack(t, name, here, hidden, call, checkpointing=checkpointing, first=index)
            hidden = deepened(t, hidden, extra)
        rest = layers[len(features) :]
        return walk_stack(t, name, rest, hidden, call, checkpointing=checkpointing, first=len(features))


class Qwen3VLText(Deepened, Qwen3):
    """Qwen3."""

    kv_heads = 32

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """None."""
        return (None,) * layers


class Qwen3VLMoeText(Deepened, Qwen3Moe):
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

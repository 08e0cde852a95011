"""SmolLM3: Llama whose every fourth layer has no rotary embedding.

Source: transformers 5.23, models/smollm3/modeling_smollm3.py and configuration_smollm3.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class NoRotary(SelfAttention):
    """Attention that knows no positions."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Query and key as they are."""
        return q, k


class SmolLM3(CausalDecoder):
    """The causal language model."""

    both_masks = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, kv_heads=4)
        every = config.integer("no_rope_layer_interval", default=4, high=2**20)
        turns = config.integers("no_rope_layers", high=1) or [
            int((index + 1) % every != 0) for index in range(s.layers)
        ]
        turns = (turns + [1] * s.layers)[: s.layers]
        slides = config.flag("use_sliding_window", False) and config.has("sliding_window")
        window = config.integer("sliding_window", high=2**31) if slides else None
        s = s.with_windows(by_layer_types(config, s.layers, tuple(None if turn else window for turn in turns), window))
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(kind: tuple[int | None, int]) -> DecoderLayer:
            attention = SelfAttention if kind[1] else NoRotary
            mlp = GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act)
            return DecoderLayer(s, attention(s, kind[0], bias=bias, output_bias=bias), mlp)

        self.assemble(s, layer, list(zip(s.windows, turns, strict=True)))

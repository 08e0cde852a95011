"""Arcee (AFM): Llama with a plain MLP of squared ReLUs.

Source: transformers 5.23, models/arcee/modeling_arcee.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import PlainMLP
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.shape import Shape


class Arcee(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, act="relu2")
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(_: object) -> DecoderLayer:
            mlp = PlainMLP(s.hidden, s.intermediate, ("up_proj", "down_proj"), s.act, mlp_bias)
            return DecoderLayer(s, SelfAttention(s, bias=bias, output_bias=bias), mlp)

        self.assemble(s, layer, s.windows)

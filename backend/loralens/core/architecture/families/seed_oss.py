"""Seed-OSS: Llama with dropout behind each branch and biases on query, key and value.

Source: transformers 5.23, models/seed_oss/modeling_seed_oss.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class SeedOssLayer(DecoderLayer):
    """Both branches end in a dropout."""

    dropout = 0.0

    def branch(self, t: Tape, x: Tensor) -> Tensor:
        """`residual_dropout`."""
        return ops.dropout(t, x, self.dropout, "residual dropout")


class SeedOss(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, head_dim=128, dropout=0.1)
        bias, output_bias = config.flag("attention_bias", True), config.flag("attention_out_bias", False)
        mlp_bias, dropout = config.flag("mlp_bias", False), config.number("residual_dropout", 0.1, 0, 1)

        def layer(_: object) -> SeedOssLayer:
            attention = SelfAttention(s, bias=bias, output_bias=output_bias)
            made = SeedOssLayer(s, attention, GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act))
            made.dropout = dropout
            return made

        self.assemble(s, layer, s.windows)

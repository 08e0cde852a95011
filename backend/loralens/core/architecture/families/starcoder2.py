"""StarCoder2: layer norms and bias throughout, a plain MLP, residual dropout, one sliding window.

Source: transformers 5.23, models/starcoder2/modeling_starcoder2.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm, PlainMLP
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class Starcoder2Attention(SelfAttention):
    """The usual attention, with dropout behind the output projection."""

    residual_dropout = 0.0

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """Output projection and dropout."""
        return ops.dropout(t, self.o_proj(t, x), self.residual_dropout, "attention: residual dropout")


class Starcoder2(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, kv_heads=2, act="gelu_pytorch_tanh")
        window = config.integer("sliding_window", high=2**31) if config.has("sliding_window") else None
        s = s.with_windows((window,) * s.layers)
        bias, dropout = config.flag("use_bias", True), config.number("residual_dropout", 0.0, 0, 1)
        self.embedding_dropout = config.number("embedding_dropout", 0.0, 0, 1)

        def layer(window: int | None) -> DecoderLayer:
            attention = Starcoder2Attention(s, window, bias=bias, output_bias=bias)
            attention.residual_dropout = dropout
            mlp = PlainMLP(s.hidden, s.intermediate, ("c_fc", "c_proj"), s.act, bias, dropout)
            return DecoderLayer(s, attention, mlp, LayerNorm)

        self.assemble(s, layer, s.windows, norm=LayerNorm)

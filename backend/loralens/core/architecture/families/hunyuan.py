"""Hunyuan (dense): Llama with norms on query and key, behind the rotary embedding.

Source: transformers 5.23, models/hunyuan_v1_dense/modeling_hunyuan_v1_dense.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.shape import Shape
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class HunyuanAttention(SelfAttention):
    """Turned, then normed head by head."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        self.query_layernorm = RMSNorm(s.head_dim)
        self.key_layernorm = RMSNorm(s.head_dim)

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        q, k, v = self.project(t, x)
        q, k = self.position(t, q, k, call)
        q = self.query_layernorm(t, q)
        k = self.key_layernorm(t, k)
        out = self.kernel(call)(t, q, k, v, call.masks["full"])
        return self.output(t, out.view(self.s.heads * self.s.head_dim))


class HunyuanDense(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        bias = config.flag("attention_bias", False)
        self.assemble(s, lambda _: DecoderLayer(s, HunyuanAttention(s, bias)), s.windows)

"""BitNet b1.58, whose weights train in 16 bits: Llama with a norm before the output and the down projection.

Source: transformers 5.23, models/bitnet/modeling_bitnet.py.
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class BitNetAttention(SelfAttention):
    """The result is normed before it is projected."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        self.attn_sub_norm = RMSNorm(s.hidden)

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """The norm, then the output projection."""
        x = self.attn_sub_norm(t, x)
        return self.o_proj(t, x)


class BitNetMLP(GatedMLP):
    """The product is normed before it goes down."""

    def __init__(self, s: Shape) -> None:
        super().__init__(s.hidden, s.intermediate, act=s.act)
        self.ffn_sub_norm = RMSNorm(s.intermediate)

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        gate = activation(t, self.gate_proj(t, x), self._act, "mlp: activated gate")
        product = ops.mul(t, gate, self.up_proj(t, x), "mlp: product")
        t.end(gate)
        normed = self.ffn_sub_norm(t, product)
        t.end(product)
        out: Tensor = self.down_proj(t, normed)
        return out


class BitNet(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=5, act="relu2")
        bias = config.flag("attention_bias", False)
        self.assemble(s, lambda _: DecoderLayer(s, BitNetAttention(s, bias), BitNetMLP(s)), s.windows)

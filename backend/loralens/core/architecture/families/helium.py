"""Helium: Llama with rotary by pairs and norms whose weight multiplies in float32.

Source: transformers 5.23, models/helium/modeling_helium.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, RMSNorm, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.module import Linear
from loralens.core.architecture.rotary import paired
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class HeliumNorm(RMSNorm):
    """A float32 copy of the weight multiplies before the cast."""

    def _weighted(self, t: Tape, x: Tensor, dtype: str) -> Tensor:
        weight = ops.cast(t, t.parameter(self.weight), "float32", "norm: weight in float32")
        return ops.cast(t, ops.mul(t, x, weight, "norm: output in float32"), dtype, "norm: output")


class HeliumAttention(SelfAttention):
    """cos and sin are spread out anew in each layer."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, bias=bias)
        self.o_proj = Linear(s.hidden, s.hidden, name="attention output projection")

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary by pairs."""
        tables = paired(t, call.shared["rotary"])
        return rotate(t, q, tables, "attention query"), rotate(t, k, tables, "attention key")


class Helium(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=20, head_dim=128)
        config.divides("head_dim", s.hidden, s.head_dim)
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(_: object) -> DecoderLayer:
            mlp = GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act)
            return DecoderLayer(s, HeliumAttention(s, bias), mlp, HeliumNorm)

        self.assemble(s, layer, s.windows, norm=HeliumNorm)

"""GLM-4 and GLM-4-0414: rotary by pairs on half of each head, gate and up in one matrix; the latter with sandwich norms.

Source: transformers 5.23, models/{glm,glm4}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import FusedGatedMLP, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.module import Module
from loralens.core.architecture.rotary import paired, rotate_part
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class GlmAttention(SelfAttention):
    """Rotary by pairs: cos and sin are spread out anew in each layer."""

    heads_first = True

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary on a part of query and key."""
        return rotate_part(t, q, k, paired(t, call.shared["rotary"]), self.s.rotated, pass_empty=True)


class Glm4Layer(DecoderLayer):
    """Norms before and after each branch."""

    def __init__(self, s: Shape, attention: Module) -> None:
        super().__init__(s, attention, FusedGatedMLP(s.hidden, s.intermediate, s.act))
        self.post_self_attn_layernorm = RMSNorm(s.hidden)
        self.post_mlp_layernorm = RMSNorm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = self.post_self_attn_layernorm(t, hidden)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = self.mlp(t, hidden)
        hidden = self.post_mlp_layernorm(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Glm(CausalDecoder):
    """GLM-4."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=2, head_dim=128, rotary=0.5)
        bias = config.flag("attention_bias", True)
        self.assemble(s, lambda _: self.layer(s, GlmAttention(s, bias=bias)), s.windows)

    def layer(self, s: Shape, attention: Module) -> DecoderLayer:
        """One decoder layer."""
        return DecoderLayer(s, attention, FusedGatedMLP(s.hidden, s.intermediate, s.act))


class Glm4(Glm):
    """GLM-4-0414."""

    def layer(self, s: Shape, attention: Module) -> DecoderLayer:
        """One decoder layer."""
        return Glm4Layer(s, attention)

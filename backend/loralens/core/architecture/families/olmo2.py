"""OLMo-2: norms behind each branch instead of before it, and on the whole query and key.

Source: transformers 5.23, models/olmo2/modeling_olmo2.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LateCastRMSNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PostNormLayer, SelfAttention
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class Olmo2Attention(SelfAttention):
    """Query and key are normed over all heads at once."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        self.q_norm = LateCastRMSNorm(s.heads * s.head_dim)
        self.k_norm = LateCastRMSNorm(s.kv_heads * s.head_dim)

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, then norms."""
        width = self.s.head_dim
        q, k = self.q_norm(t, self.q_proj(t, x)), self.k_norm(t, self.k_proj(t, x))
        return q.view(width), k.view(width), self.v_proj(t, x).view(width)

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Turned in float32, and cast back."""
        dtypes = q.dtype, k.dtype
        q, k = super().position(t, q, k, call)
        return (
            ops.cast(t, q, dtypes[0], "attention query after rotary, cast"),
            ops.cast(t, k, dtypes[1], "attention key after rotary, cast"),
        )


class Olmo2Layer(PostNormLayer):
    """With norms that cast late."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, Olmo2Attention(s, bias), LateCastRMSNorm)


class Olmo2(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        bias = config.flag("attention_bias", False)
        self.assemble(s, lambda _: Olmo2Layer(s, bias), s.windows, norm=LateCastRMSNorm)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Tables stay in float32."""
        call.shared["rotary"] = Rotary(self.s.rotated, float32=True).tables(t, hidden)

"""OLMo (1): layer norms without weights, queries, keys and values clipped in place, rotary in float32.

Source: transformers 5.23, models/olmo/modeling_olmo.py; torch autograd saves a copy of what is clamped in place.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.rotary import rotate_float32
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class WeightlessNorm(LayerNorm):
    """In float32 whatever comes in, and cast back."""

    def __init__(self, width: int) -> None:
        super().__init__(width, affine=False)

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        out = super().forward(t, ops.cast(t, x, "float32", "norm: input in float32"))
        return ops.cast(t, out, x.dtype, "norm: output")


def clipped(t: Tape, x: Tensor) -> Tensor:
    """`x.clamp_(-c, c)`: x's own storage, and a copy of what was there, from which backward knows what was cut."""
    kept = t.new(x.numel, x.dtype, x.width, "clipped: input kept") if x.node else None
    out = Tensor(x.storage, x.numel, x.dtype, x.width)
    numel, dtype, width = x.numel, x.dtype, x.width
    t.record("clipped", [out], [x], [kept], lambda g: t.new(numel, dtype, width, "gradient: clipped", "temporaries"))
    return out


class OlmoAttention(SelfAttention):
    """Clipped projections; rotary in float32."""

    clips = False

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, clipped where the config asks for it."""
        q, k, v = super().project(t, x)
        if self.clips:
            q = clipped(t, q)
            k = clipped(t, k)
            v = clipped(t, v)
        return q, k, v

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding of query and key."""
        return rotate_float32(t, q, k, call.shared["rotary"])


class Olmo(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        bias, clips = config.flag("attention_bias", False), config.has("clip_qkv")

        def layer(_: object) -> DecoderLayer:
            attention = OlmoAttention(s, bias=bias, output_bias=bias)
            attention.clips = clips
            return DecoderLayer(s, attention, norm=WeightlessNorm)

        self.assemble(s, layer, s.windows, norm=WeightlessNorm)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Rotary tables, not cast."""
        call.shared["rotary"] = Rotary(self.s.rotated, float32=True).tables(t, hidden)

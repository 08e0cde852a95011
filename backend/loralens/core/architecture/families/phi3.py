"""Phi-3, Phi-3.5 and Phi-4: q, k, v in one matrix, gate and up in another, rotary on a part of each head.

Source: transformers 5.23, models/phi3/modeling_phi3.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import FusedGatedMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.module import Linear
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class Phi3Attention(SelfAttention):
    """Query, key and value are slices of one result, which value keeps alive."""

    heads_first = True

    def __init__(self, s: Shape, window: int | None) -> None:
        self.o_proj = Linear(s.heads * s.head_dim, s.hidden, name="attention output projection")
        self.qkv_proj = Linear(s.hidden, (s.heads + 2 * s.kv_heads) * s.head_dim, name="attention query, key and value")
        self.s = s
        self.mask = "sliding" if window else "full"

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three slices of the fused projection."""
        s, qkv = self.s, self.qkv_proj(t, x)
        q, k, v = (
            ops.slice_last(t, qkv, n * s.head_dim, "attention: q, k, v") for n in (s.heads, s.kv_heads, s.kv_heads)
        )
        return q.view(s.head_dim), k.view(s.head_dim), v.view(s.head_dim)

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Slices and concatenates even where the whole head turns."""
        return rotate_part(t, q, k, call.shared["rotary"], self.s.rotated, pass_empty=True)


class Phi3Layer(DecoderLayer):
    """The usual layer, with dropout on both branches."""

    def __init__(self, s: Shape, window: int | None, dropout: float) -> None:
        super().__init__(s, Phi3Attention(s, window), FusedGatedMLP(s.hidden, s.intermediate, s.act))
        self._dropout = dropout

    def branch(self, t: Tape, x: Tensor) -> Tensor:
        """Residual dropout."""
        return ops.dropout(t, x, self._dropout, "residual dropout")


class Phi3(CausalDecoder):
    """The causal language model."""

    default_targets: tuple[str, ...] | str = ("qkv_proj",)
    kv_heads: int | None = None

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=self.kv_heads)
        window = config.integer("sliding_window", high=2**31) if config.has("sliding_window") else None
        s = s.with_windows((window,) * s.layers)
        dropout = config.number("resid_pdrop", 0.0, 0, 1)
        self.assemble(s, lambda window: Phi3Layer(s, window, dropout), s.windows)

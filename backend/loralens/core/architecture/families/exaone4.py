"""EXAONE 4: norms behind each branch and on query and key; layers that see everything have no rotary embedding.

Source: transformers 5.23, models/exaone4/modeling_exaone4.py.
"""

from __future__ import annotations

from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PostNormLayer
from loralens.core.architecture.families.llama import NormedAttention
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class Exaone4Attention(NormedAttention):
    """Rotary only where the layer slides, or where no layer does."""

    turns = True

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, then norms."""
        width = self.s.head_dim
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        q = self.q_norm(t, q)
        k = self.k_norm(t, k)
        return q, k, v

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding of query and key."""
        return super().position(t, q, k, call) if self.turns else (q, k)


class Exaone4(CausalDecoder):
    """The causal language model."""

    both_masks = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=32)
        silent = "sliding_window" not in config.entries
        slides = silent or config.has("sliding_window")
        window = config.integer("sliding_window", default=4096, high=2**31) if slides else None
        given = config.has("layer_types") or window is None  # else a pattern of letters is of no matter
        every = 4 if given else config.integer("sliding_window_pattern", default=4, high=2**20)
        default = tuple(None if (index + 1) % every == 0 else window for index in range(s.layers))
        s = s.with_windows(by_layer_types(config, s.layers, default, window))

        def layer(own: int | None) -> PostNormLayer:
            attention = Exaone4Attention(s, own)
            attention.turns = window is None or own is not None
            return PostNormLayer(s, attention)

        self.assemble(s, layer, s.windows)

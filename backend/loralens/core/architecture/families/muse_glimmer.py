"""Muse Glimmer's language model: normed embeddings, gated attention with norms without weights, four norms a layer, capped logits.

Source: transformers 5.23, models/muse_glimmer/modeling_muse_glimmer.py.
"""

from __future__ import annotations

from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import hold_embeddings, position_ids, token_ids
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.families.gemma import SandwichLayer
from loralens.core.architecture.families.per_layer import PowerNorm
from loralens.core.architecture.module import Linear
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class MuseAttention(SelfAttention):
    """One norm without a weight for query and key, the query multiplied; a sigmoid gate on the result."""

    def __init__(self, s: Shape, window: int | None, bias: bool, turns: bool) -> None:
        super().__init__(s, window, bias=bias, output_bias=bias)
        self.gate_proj = Linear(s.hidden, s.heads * s.head_dim, name="attention gate")
        self.qk_norm = PowerNorm(s.head_dim, scaled=False)
        self._turns = turns

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self.s, self.s.head_dim
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        q = ops.scale(t, self.qk_norm(t, q), "attention query, scaled")
        k = self.qk_norm(t, k)
        if self._turns:
            q, k = rotate_part(t, q, k, call.shared["rotary"], s.rotated)
        out = self.kernel(call)(t, q, k, v, call.masks[self.mask]).view(s.heads * width)
        gate = ops.sigmoid(t, self.gate_proj(t, x), "attention: sigmoid of the gate")
        out = t.replace(out, ops.mul(t, out, gate, "attention: gated result"))
        t.end(gate)
        result: Tensor = self.o_proj(t, out)
        return result


class MuseGlimmer(CausalDecoder):
    """The language model; layers without a window have no rotary embedding."""

    both_masks = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=2, head_dim=128)
        window = config.integer("sliding_window", default=2048, high=2**31)
        default = tuple(window if (s.layers - 1 - index) % 4 else None for index in range(s.layers))
        s = s.with_windows(by_layer_types(config, s.layers, default, window))
        bias = config.flag("attention_bias", False)
        thetas = config.entries.get("layer_rope_theta")
        turns = [window is not None for window in default]
        if isinstance(thetas, (list, tuple)) and len(thetas) >= s.layers and s.layers <= MAX_LAYERS:
            turns = [bool(theta) for theta in thetas[: s.layers]]

        def layer(kind: tuple[int | None, bool]) -> SandwichLayer:
            return SandwichLayer(s, MuseAttention(s, kind[0], bias, kind[1]))

        self.assemble(s, layer, list(zip(s.windows, turns, strict=True)), norm=PowerNorm)

    def embed(self, t: Tape, call: Call) -> Tensor:
        """The embedding's own norm, without a weight, comes first."""
        found = self.embedding(t, TOKENS, "embeddings", token_ids(t, call))
        hidden = t.replace(found, PowerNorm(self.s.hidden, scaled=False)(t, found))
        hold_embeddings(t, hidden, call)
        if call.media is not None:
            hidden = call.media.placed(t, hidden, call)
        position_ids(t, call)
        self.masks(t, call)
        self.tables(t, hidden, call)
        return hidden

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """Multiplied, then capped."""
        logits = ops.scale(t, super().logits(t, hidden), "logits, multiplied")
        logits = ops.scale(t, logits, "logits / cap")
        logits = ops.tanh(t, logits, "tanh of logits")
        return ops.scale(t, logits, "capped logits")

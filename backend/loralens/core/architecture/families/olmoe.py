"""OLMoE: norms on the whole query and key, 64 small experts in every layer.

Source: transformers 5.23, models/olmoe/modeling_olmoe.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.families.olmo import clipped
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, Router, SparseMLP
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class OlmoeAttention(SelfAttention):
    """Query and key are normed over all heads at once; all three may be clipped."""

    def __init__(self, s: Shape, bias: bool, clips: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        self.q_norm = RMSNorm(s.hidden)
        self.k_norm = RMSNorm(s.hidden // s.heads * s.kv_heads)
        self._clips = clips

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, norms, clipping."""
        q, k, v = self.q_norm(t, self.q_proj(t, x)), self.k_norm(t, self.k_proj(t, x)), self.v_proj(t, x)
        if self._clips:
            q = clipped(t, q)
            k = clipped(t, k)
            v = clipped(t, v)
        return q.view(self.s.head_dim), k.view(self.s.head_dim), v.view(self.s.head_dim)


class Olmoe(CausalDecoder):
    """The causal language model."""

    expert_targets = EXPERT_TARGETS

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        bias, clips = config.flag("attention_bias", False), config.has("clip_qkv")
        experts = config.integer("num_experts", "num_local_experts", default=64, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=8, high=experts)

        def layer(_: object) -> DecoderLayer:
            mlp = SparseMLP(
                Router(s.hidden, experts, chosen, casts_back=True), Experts(s.hidden, s.intermediate, experts, s.act)
            )
            return DecoderLayer(s, OlmoeAttention(s, bias, clips), mlp)

        self.assemble(s, layer, s.windows)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

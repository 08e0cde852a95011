"""MiniMax-M2: norms on the whole query and key, rotary on half of each head, experts chosen by sigmoid in every layer.

Source: transformers 5.23, models/minimax_m2/modeling_minimax_m2.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, SparseMLP
from loralens.core.architecture.moe_sigmoid import SigmoidRouter
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class MiniMaxM2Attention(SelfAttention):
    """Query and key are normed over all heads at once; both are always put together anew."""

    heads_first = True

    def __init__(self, s: Shape) -> None:
        super().__init__(s)
        self.q_norm = RMSNorm(s.heads * s.head_dim)
        self.k_norm = RMSNorm(s.kv_heads * s.head_dim)

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, of which two are normed before they are cut into heads."""
        width = self.s.head_dim
        q, k = self.q_norm(t, self.q_proj(t, x)), self.k_norm(t, self.k_proj(t, x))
        return q.view(width), k.view(width), self.v_proj(t, x).view(width)

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary on a part of query and key."""
        return rotate_part(t, q, k, call.shared["rotary"], self.s.rotated, pass_empty=True)


class MiniMaxM2Router(SigmoidRouter):
    """The sigmoid is taken in float32; the weights are not scaled."""

    upcasts, in_place, scaled = True, True, False


class MiniMaxM2(CausalDecoder):
    """The causal language model."""

    expert_targets = EXPERT_TARGETS

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, head_dim=128)
        experts = config.integer("num_local_experts", "num_experts", default=256, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=8, high=experts)

        def layer(_: object) -> DecoderLayer:
            router = MiniMaxM2Router(s.hidden, experts, chosen)
            mlp = SparseMLP(router, Experts(s.hidden, s.intermediate, experts, s.act))
            return DecoderLayer(s, MiniMaxM2Attention(s), mlp)

        self.assemble(s, layer, s.windows)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

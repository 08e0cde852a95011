"""GLM-4.5: GLM's partial rotary with norms on query and key, shared experts, dense first layers.

Source: transformers 5.23, models/glm4_moe/modeling_glm4_moe.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, SparseMLP
from loralens.core.architecture.moe_sigmoid import GroupRouter
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class Glm4MoeAttention(SelfAttention):
    """Norms on query and key where the config asks for them; rotary on a part of each head."""

    heads_first = True

    def __init__(self, s: Shape, bias: bool, norms: bool) -> None:
        super().__init__(s, bias=bias)
        if norms:
            self.q_norm = RMSNorm(s.head_dim)
            self.k_norm = RMSNorm(s.head_dim)
        self._norms = norms

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, then norms."""
        q, k, v = super().project(t, x)
        if self._norms:
            q = self.q_norm(t, q)
            k = self.k_norm(t, k)
        return q, k, v

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary on a part of query and key."""
        return rotate_part(t, q, k, call.shared["rotary"], self.s.rotated, pass_empty=True)


class Glm4Moe(CausalDecoder):
    """The causal language model."""

    expert_targets = EXPERT_TARGETS

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, rotary=0.5, head_dim=128)
        experts = config.integer("n_routed_experts", "num_local_experts", default=128, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=8, high=experts)
        width = config.integer("moe_intermediate_size", default=1408)
        shared = config.integer("n_shared_experts", default=1, high=MAX_HEADS)
        dense = config.integer("first_k_dense_replace", default=1, low=0, high=100_000)
        bias, norms = config.flag("attention_bias", False), config.flag("use_qk_norm", False)

        def layer(is_dense: bool) -> DecoderLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if not is_dense:
                router = GroupRouter(s.hidden, experts, chosen, float32=True)
                mlp = SparseMLP(
                    router,
                    Experts(s.hidden, width, experts, s.act),
                    GatedMLP(s.hidden, width * shared, act=s.act),
                    experts_first=True,
                )
            return DecoderLayer(s, Glm4MoeAttention(s, bias, norms), mlp)

        self.assemble(s, layer, [index < dense for index in range(s.layers)])

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

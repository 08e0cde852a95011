"""Granite 4: Granite's multipliers around Mamba-2 mixers and a few attention layers, experts beside a shared MLP.

Source: transformers 5.23, models/granitemoehybrid/modeling_granitemoehybrid.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import SelfAttention
from loralens.core.architecture.families.granite import Granite
from loralens.core.architecture.families.granite_moe import ChosenFirstRouter, GraniteSharedMLP
from loralens.core.architecture.families.state_space import headed_mixer, layer_kinds, mixers_as
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import ROUTING, Experts, SparseMLP
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape

_KINDS = ("linear_attention", "full_attention")


class GraniteAttention(SelfAttention):
    """Most of these models have no positions but those that the mixers see."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding, where the config asks for it."""
        return super().position(t, q, k, call) if self.s.rotated else (q, k)


class GraniteHybridLayer(Module):
    """A mixer or attention, experts where there are any, and a shared MLP."""

    def __init__(
        self, s: Shape, mixer: Module | None, attention: Module | None, experts: SparseMLP | None, shared: int
    ) -> None:
        if mixer is not None:
            self.mamba = mixer
        if attention is not None:
            self.self_attn = attention
        self.input_layernorm = RMSNorm(s.hidden)
        self.post_attention_layernorm = RMSNorm(s.hidden)
        if experts is not None:
            self.block_sparse_moe = experts
        self.shared_mlp = GraniteSharedMLP(s.hidden, shared, s.act)
        self._mixer, self._sparse = "mamba" if attention is None else "self_attn", experts is not None

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = getattr(self, self._mixer)(t, hidden, call)
        hidden = ops.add(t, residual, ops.scale(t, hidden, "branch, multiplied"), "residual stream after attention")
        residual = hidden
        hidden = self.post_attention_layernorm(t, hidden)
        if self._sparse:
            routed = t.local(self.block_sparse_moe(t, hidden))
            hidden = ops.add(t, routed, self.shared_mlp(t, hidden), "experts plus shared mlp")
        else:
            hidden = self.shared_mlp(t, hidden)
        return ops.add(t, residual, ops.scale(t, hidden, "branch, multiplied"), "residual stream after the layer")


class GraniteHybrid(Granite):
    """The causal language model."""

    mixes = True
    caches = False

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        if config.text("position_embedding_type", "") != "rope":
            s = s.with_rotated(0)
        experts = config.integer("num_local_experts", default=8, low=0, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(2, experts), low=0, high=max(experts, 2))
        shared = config.integer("shared_intermediate_size", default=1024)
        bias = config.flag("attention_bias", False)
        kinds = layer_kinds(config, ("layer_types", "layers_block_type"), ["linear_attention"] * s.layers, _KINDS)
        self._sparse = experts > 0

        def layer(kind: str) -> Module:
            sparse = None
            if experts:
                router = ChosenFirstRouter(s.hidden, experts, chosen)
                sparse = SparseMLP(router, Experts(s.hidden, s.intermediate, experts, s.act), router_name="router")
            if kind == "linear_attention":
                return GraniteHybridLayer(s, headed_mixer(config, s.hidden), None, sparse, shared)
            return GraniteHybridLayer(s, None, GraniteAttention(s, bias=bias, output_bias=bias), sparse, shared)

        self.assemble(s, layer, kinds)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run, and how the experts do."""
        return [*super().assumptions(recipe), mixers_as(recipe), *([ROUTING] if self._sparse else [])]

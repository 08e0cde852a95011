"""MiniMax-Text-01: lightning attention between full attention layers, Mixtral's experts; counted, not walked.

Source: transformers 5.23, models/minimax/modeling_minimax.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.counting import CountedDecoder
from loralens.core.architecture.decoder import DecoderLayer, SelfAttention
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import MIXTRAL_TARGETS, Experts, Router, SparseMLP
from loralens.core.architecture.shape import Shape


class LightningAttention(Module):
    """Linear attention with a decay for each head and an output gate."""

    def __init__(self, s: Shape) -> None:
        width = s.heads * s.head_dim
        self.norm = RMSNorm(width)
        self.qkv_proj = Linear(s.hidden, 3 * width, name="attention query, key and value")
        self.out_proj = Linear(width, s.hidden, name="attention output projection")
        self.output_gate = Linear(s.hidden, width, name="attention output gate")


class MiniMax(CountedDecoder):
    """The causal language model."""

    family = "minimax"
    expert_targets = MIXTRAL_TARGETS

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8)
        experts = config.integer("num_local_experts", "num_experts", default=8, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(2, experts), high=experts)
        default = ["linear_attention" if index % 2 else "full_attention" for index in range(s.layers)]
        kinds = layer_kinds(config, ("layer_types",), default, ("linear_attention", "full_attention"))

        def layer(kind: str) -> DecoderLayer:
            attention: Module = LightningAttention(s) if kind == "linear_attention" else SelfAttention(s)
            mlp = SparseMLP(Router(s.hidden, experts, chosen), Experts(s.hidden, s.intermediate, experts, s.act))
            return DecoderLayer(s, attention, mlp)

        self.assemble(s, layer, kinds)

"""EXAONE MoE (K-EXAONE): EXAONE 4's attention with norms before each branch, DeepSeek-V3's experts behind dense first layers.

Source: transformers 5.23, models/exaone_moe/modeling_exaone_moe.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer
from loralens.core.architecture.families.exaone4 import Exaone4Attention
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, SparseMLP
from loralens.core.architecture.moe_sigmoid import GroupRouter
from loralens.core.architecture.shape import MAX_HEADS, Shape, by_layer_types
from loralens.core.question.recipe import Recipe


class ExaoneMoe(CausalDecoder):
    """The causal language model."""

    expert_targets = EXPERT_TARGETS

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=32)
        slides = "sliding_window" not in config.entries or config.has("sliding_window")
        window = config.integer("sliding_window", default=4096, high=2**31) if slides else None
        given = config.has("layer_types") or window is None
        every = 4 if given else config.integer("sliding_window_pattern", default=4, high=2**20)
        default = tuple(None if (index + 1) % every == 0 else window for index in range(s.layers))
        s = s.with_windows(by_layer_types(config, s.layers, default, window))
        dense = config.integer("first_k_dense_replace", default=1, low=0, high=MAX_LAYERS)
        mlps = ["dense" if index < dense else "sparse" for index in range(s.layers)]
        mlps = layer_kinds(config, ("mlp_layer_types",), mlps, ("dense", "sparse"))
        experts = config.integer("num_experts", "num_local_experts", default=64, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(8, experts), high=experts)
        width = config.integer("moe_intermediate_size", default=1024)
        shared = config.integer("num_shared_experts", default=1, high=MAX_HEADS)

        def layer(kind: tuple[int | None, str]) -> DecoderLayer:
            attention = Exaone4Attention(s, kind[0])
            attention.turns = window is None or kind[0] is not None
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if kind[1] == "sparse":
                router = GroupRouter(s.hidden, experts, chosen, float32=True)
                router.normed = config.flag("norm_topk_prob", True)
                beside = GatedMLP(s.hidden, width * shared, act=s.act)
                mlp = SparseMLP(router, Experts(s.hidden, width, experts, s.act), beside, experts_first=True)
            return DecoderLayer(s, attention, mlp)

        self.assemble(s, layer, list(zip(s.windows, mlps, strict=True)))

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

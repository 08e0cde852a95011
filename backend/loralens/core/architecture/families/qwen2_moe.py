"""Qwen1.5-MoE and Qwen2-57B-A14B: Qwen2's attention, many small experts and a gated shared one.

Source: transformers 5.23, models/qwen2_moe/modeling_qwen2_moe.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import ROUTING, Experts, Router
from loralens.core.architecture.moe_shared import GatedSharedMLP
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.question.recipe import Recipe


class Qwen2Moe(CausalDecoder):
    """The causal language model."""

    both_masks = True  # PEFT translates no names of experts for this very type: stacked weights stay as they are

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=16)
        slides = config.flag("use_sliding_window", False)
        window = config.integer("sliding_window", default=4096, high=2**31) if slides else None
        first = config.integer("max_window_layers", default=28, low=0, high=2**31)
        default = tuple(None if index % 2 or index >= first else window for index in range(s.layers))
        s = s.with_windows(by_layer_types(config, s.layers, default, window))
        experts = config.integer("num_experts", default=60, low=0, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=4, low=0, high=max(experts, 4))
        width = config.integer("moe_intermediate_size", default=1408)
        shared = config.integer("shared_expert_intermediate_size", default=5632)
        step = config.integer("decoder_sparse_step", default=1, high=2**20)
        dense = set(config.integers("mlp_only_layers") or ())
        bias = config.flag("qkv_bias", True)
        sparse = [index not in dense and experts > 0 and (index + 1) % step == 0 for index in range(s.layers)]

        def layer(kind: tuple[bool, int | None]) -> DecoderLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if kind[0]:
                router, beside = (
                    Router(s.hidden, experts, chosen, casts_back=True),
                    GatedMLP(s.hidden, shared, act=s.act),
                )
                mlp = GatedSharedMLP(router, Experts(s.hidden, width, experts, s.act), beside, s.hidden)
            return DecoderLayer(s, SelfAttention(s, kind[1], bias=bias), mlp)

        self.assemble(s, layer, list(zip(sparse, s.windows, strict=True)))

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

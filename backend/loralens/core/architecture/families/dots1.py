"""dots.llm1: Qwen3's attention with DeepSeek-V3's experts behind dense first layers.

Source: transformers 5.23, models/dots1/modeling_dots1.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer
from loralens.core.architecture.families.llama import NormedAttention
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, SparseMLP
from loralens.core.architecture.moe_sigmoid import GroupRouter
from loralens.core.architecture.shape import MAX_HEADS, Shape, by_layer_types
from loralens.core.question.recipe import Recipe


class Dots1(CausalDecoder):
    """The causal language model."""

    expert_targets = EXPERT_TARGETS

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=32)
        window = None
        if "sliding_window" not in config.entries or config.has("sliding_window"):
            window = config.integer("sliding_window", default=4096, high=2**31)
        first = config.integer("max_window_layers", default=62, low=0, high=2**31)
        default = tuple(None if index < first else window for index in range(s.layers))
        s = s.with_windows(by_layer_types(config, s.layers, default, window))
        experts = config.integer("n_routed_experts", "num_local_experts", high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", high=experts)
        width = config.integer("moe_intermediate_size", default=1408)
        shared = config.integer("n_shared_experts", high=MAX_HEADS)
        dense = config.integer("first_k_dense_replace", default=0, low=0, high=MAX_LAYERS)
        bias = config.flag("attention_bias", False)

        def layer(kind: tuple[int | None, bool]) -> DecoderLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if not kind[1]:
                mlp = SparseMLP(
                    GroupRouter(s.hidden, experts, chosen, float32=True),
                    Experts(s.hidden, width, experts, s.act),
                    GatedMLP(s.hidden, width * shared, act=s.act),
                    experts_first=True,
                )
            return DecoderLayer(s, NormedAttention(s, kind[0], bias=bias, output_bias=bias), mlp)

        self.assemble(s, layer, [(window, index < dense) for index, window in enumerate(s.windows)])

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

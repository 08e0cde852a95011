"""Mixtral and Qwen3-MoE: Mistral's and Qwen3's decoders with experts for the MLP.

Source: transformers 5.23, models/{mixtral,qwen3_moe}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.families.llama import NormedAttention
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import EXPERT_TARGETS, MIXTRAL_TARGETS, ROUTING, Experts, Router, SparseMLP
from loralens.core.architecture.moe_looped import EQUAL_SHARES, FUSED_SINCE, LoopedExperts
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class Mixtral(CausalDecoder):
    """Eight experts, two for each token."""

    expert_targets: dict[str, str] | None = MIXTRAL_TARGETS

    looped = False

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8)
        window = config.integer("sliding_window", high=2**31) if config.has("sliding_window") else None
        s = s.with_windows((window,) * s.layers)
        experts = config.integer("num_local_experts", "num_experts", default=8, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=2, high=experts)

        def layer(window: int | None) -> DecoderLayer:
            if self.looped:
                return LoopedLayer(s, window, LoopedExperts(s.hidden, s.intermediate, experts, chosen, s.act))
            mlp = SparseMLP(Router(s.hidden, experts, chosen), Experts(s.hidden, s.intermediate, experts, s.act))
            return DecoderLayer(s, SelfAttention(s, window), mlp)

        self.looped = config.transformers < FUSED_SINCE
        self.assemble(s, layer, s.windows)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), EQUAL_SHARES if self.looped else ROUTING]


class LoopedLayer(DecoderLayer):
    """Mixtral's layer before transformers 5."""

    def __init__(self, s: Shape, window: int | None, experts: LoopedExperts) -> None:
        super().__init__(s, SelfAttention(s, window), experts)
        self.block_sparse_moe = experts
        del self.mlp

    def feed_forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """The experts, under their older name."""
        return self.block_sparse_moe(t, hidden)


class Qwen3Moe(Mixtral):
    """Many small experts; some layers may be dense."""

    expert_targets: dict[str, str] | None = EXPERT_TARGETS

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=4)
        window = (
            config.integer("sliding_window", default=4096, high=2**31)
            if config.flag("use_sliding_window", False)
            else None
        )
        s = s.with_windows((window,) * s.layers)
        experts = config.integer("num_experts", "num_local_experts", default=128, low=0, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=8, low=0, high=max(experts, 8))
        width = config.integer("moe_intermediate_size", default=768)
        step = config.integer("decoder_sparse_step", default=1, high=2**20)
        dense = set(config.integers("mlp_only_layers") or ())
        bias = config.flag("attention_bias", False)
        sparse = [index not in dense and experts > 0 and (index + 1) % step == 0 for index in range(s.layers)]

        def layer(is_sparse: bool) -> DecoderLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if is_sparse:
                mlp = SparseMLP(
                    Router(s.hidden, experts, chosen, casts_back=True),
                    Experts(s.hidden, width, experts, s.act),
                    experts_first=True,
                )
            return DecoderLayer(s, NormedAttention(s, window, bias=bias, output_bias=bias), mlp)

        self.assemble(s, layer, sparse)

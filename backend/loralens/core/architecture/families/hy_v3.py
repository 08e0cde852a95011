"""Hunyuan 3: Llama with norms on query and key, and experts beside a shared MLP, joined in float32.

Source: transformers 5.23, models/hy_v3/modeling_hy_v3.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer
from loralens.core.architecture.families.apertus import LateNormedAttention
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import ROUTING, Experts
from loralens.core.architecture.moe_sigmoid import SigmoidRouter
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class HyMoe(Module):
    """Router, experts and the shared MLP. `wide`: both are made float32 before they are added."""

    def __init__(self, router: SigmoidRouter, experts: Experts, shared: GatedMLP, wide: bool) -> None:
        self.gate = router
        self.experts = experts
        self.shared_experts = shared
        self._wide = wide

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        weights, numbers = self.gate.forward(t, x)
        routed = t.local(self.experts(t, x, weights, numbers, self.gate.chosen))
        if not self._wide:
            return ops.add(t, routed, self.shared_experts(t, x), "experts plus shared expert")
        routed = ops.cast(t, routed, "float32", "experts: result in float32")
        beside = ops.cast(t, self.shared_experts(t, x), "float32", "shared expert in float32")
        total = ops.add(t, routed, beside, "experts plus shared expert")
        return ops.cast(t, total, x.dtype, "experts plus shared expert, cast back")


class HyV3(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, head_dim=128)
        experts = config.integer("num_experts", "num_local_experts", default=192, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=8, high=experts)
        width = config.integer("moe_intermediate_size", default=1536)
        shared = config.integer("num_shared_experts", default=1, high=MAX_HEADS)
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
        wide = config.flag("enable_moe_fp32_combine", True)
        default = ["dense"] + ["sparse"] * (s.layers - 1)
        kinds = layer_kinds(config, ("mlp_layer_types",), default, ("dense", "sparse"))

        def layer(kind: str) -> DecoderLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act)
            if kind == "sparse":
                mlp = HyMoe(
                    SigmoidRouter(s.hidden, experts, chosen, float32=True),
                    Experts(s.hidden, width, experts, s.act),
                    GatedMLP(s.hidden, width * shared, mlp_bias, s.act),
                    wide,
                )
            return DecoderLayer(s, LateNormedAttention(s, bias=bias, output_bias=bias), mlp)

        self.assemble(s, layer, kinds)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

"""ERNIE 4.5: Llama with rotary by pairs in float32; its mixture has shared experts and dense layers around the sparse ones.

Source: transformers 5.23, models/{ernie4_5,ernie4_5_moe}/modeling_*.py.
"""

from __future__ import annotations

from collections.abc import Callable

from loralens.core.architecture.blocks import GatedMLP, Rotary, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, Router
from loralens.core.architecture.moe_shared import SharedFirstMLP
from loralens.core.architecture.rotary import paired
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.tape import Tape


class ErnieAttention(SelfAttention):
    """Everything that turns is float32."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary by pairs, on float32 copies, cast back."""
        tables = paired(t, call.shared["rotary"])
        q_out = rotate(t, ops.cast(t, q, "float32", "attention query in float32"), tables, "attention query")
        k_out = rotate(t, ops.cast(t, k, "float32", "attention key in float32"), tables, "attention key")
        return (
            ops.cast(t, q_out, q.dtype, "attention query, cast back"),
            ops.cast(t, k_out, k.dtype, "attention key, cast back"),
        )


class Ernie(CausalDecoder):
    """The dense model."""

    kv_heads: int = 2
    head_dim: int | None = 128
    head_may_have_bias = False

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, kv_heads=self.kv_heads, head_dim=self.head_dim)
        bias = config.flag("use_bias", False)
        make, kinds = self.mlps(config, s, bias)

        def layer(kind: bool) -> DecoderLayer:
            return DecoderLayer(s, ErnieAttention(s, bias=bias, output_bias=bias), make(kind))

        self.assemble(s, layer, kinds, head_bias=bias and self.head_may_have_bias)

    def mlps(self, config: Config, s: Shape, bias: bool) -> tuple[Callable[[bool], Module], list[bool]]:
        """How a layer's MLP is made, and which layers are sparse."""
        return lambda _: GatedMLP(s.hidden, s.intermediate, bias, s.act), [False] * s.layers

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Rotary tables, not cast."""
        call.shared["rotary"] = Rotary(self.s.rotated, float32=True).tables(t, hidden)


class ErnieRouter(Router):
    """Weights are held in float32 and autocast is off; a bias that never trains joins in choosing only."""

    def __init__(self, hidden: int, experts: int, chosen: int) -> None:
        super().__init__(hidden, experts, chosen, float32=True)
        self.moe_statics = Module()
        self.moe_statics.multiplies = False  # added to scores
        self.moe_statics.e_score_correction_bias = bias = Parameter((1, experts))
        bias.frozen = True
        self.weight.held_in = bias.held_in = "float32"

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        outside, t.autocast = t.autocast, None
        values, numbers = super().forward(t, x)
        t.autocast = outside
        return ops.cast(t, values, x.dtype, "router: weights, cast back"), numbers


class ErnieMoe(Ernie):
    """The mixture of experts."""

    expert_targets = EXPERT_TARGETS
    kv_heads = 4
    head_dim = None
    head_may_have_bias = True

    def mlps(self, config: Config, s: Shape, bias: bool) -> tuple[Callable[[bool], Module], list[bool]]:
        """How a layer's MLP is made, and which layers are sparse."""
        experts = config.integer("moe_num_experts", "num_experts", default=64, high=MAX_EXPERTS)
        chosen = config.integer("moe_k", "num_experts_per_tok", default=6, high=experts)
        width = config.integer("moe_intermediate_size", default=1536)
        shared = config.integer("moe_num_shared_experts", default=2, low=0, high=MAX_HEADS)
        first = config.integer("moe_layer_start_index", default=1, low=0, high=MAX_LAYERS)
        last = config.integer("moe_layer_end_index", default=-1, low=-1, high=MAX_LAYERS)
        last = s.layers - 1 if last == -1 else last
        every = config.integer("moe_layer_interval", default=1, high=MAX_LAYERS)

        def make(sparse: bool) -> Module:
            if not sparse:
                return GatedMLP(s.hidden, s.intermediate, bias, s.act)
            beside = GatedMLP(s.hidden, width * shared, bias, s.act) if shared else None
            return SharedFirstMLP(
                ErnieRouter(s.hidden, experts, chosen), Experts(s.hidden, width, experts, s.act), beside
            )

        return make, [(index + 1) % every == 0 and first <= index <= last for index in range(s.layers)]

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

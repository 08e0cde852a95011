"""Laguna: attention with a number of heads of its own in each layer and a softplus gate, experts chosen by sigmoid.

Source: transformers 5.23, models/laguna/modeling_laguna.py.
"""

from __future__ import annotations

from dataclasses import replace

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.families.llama import NormedAttention
from loralens.core.architecture.families.mimo_v2_flash import MiMoLayer, MiMoV2Flash
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import Experts
from loralens.core.architecture.moe_sigmoid import SigmoidRouter
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import softplus
from loralens.core.tape.tape import Tape

_ROTATED = {"full_attention": 0.5, "sliding_attention": 1.0}  # of a head, where the config does not say


class LagunaAttention(NormedAttention):
    """A gate for each head, or for each value of it."""

    heads_first = True

    def __init__(self, s: Shape, kind: str, bias: bool, per_head: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        self.g_proj = Linear(s.hidden, s.heads * (1 if per_head else s.head_dim), name="attention gate")
        self.kind, self._per_head = kind, per_head

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self.s, self.s.head_dim
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        q = self.q_norm(t, q)
        k = self.k_norm(t, k)
        tables = call.shared[f"rotary, {self.kind}"]
        q, k = rotate_part(t, q, k, tables, tables[0].width, pass_empty=True)
        out = self.kernel(call)(t, q, k, v, call.masks[self.kind])
        gate = ops.cast(t, self.g_proj(t, x), "float32", "attention: gate in float32")
        gate = ops.cast(t, softplus(t, gate, "attention: softplus of the gate"), out.dtype, "attention: gate")
        out = out.view(width) if self._per_head else out.view(s.heads * width)
        out = ops.mul(t, out, gate, "attention: gated result").view(s.heads * width)
        result: Tensor = self.o_proj(t, out)
        return result


class LagunaRouter(SigmoidRouter):
    """The correction is a parameter that never trains; weights come back in the hidden states' dtype."""

    upcasts = True
    scaled = False
    capped = False

    def __init__(self, hidden: int, experts: int, chosen: int) -> None:
        super().__init__(hidden, experts, chosen)
        self.e_score_correction_bias = Parameter((experts,))
        self.e_score_correction_bias.frozen = True

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        weights, numbers = super().forward(t, x)
        return ops.cast(t, weights, x.dtype, "router: weights, cast back"), numbers

    def scored(self, t: Tape, logits: Tensor) -> Tensor:
        """Every expert's score, of capped logits where the config asks for it."""
        if self.capped:
            logits = ops.tanh(t, ops.scale(t, logits, "router: logits / cap"), "router: tanh of logits")
            logits = ops.scale(t, logits, "router: capped logits")
        return super().scored(t, logits)


class LagunaMoe(Module):
    """The shared expert first, then the router's."""

    def __init__(self, router: LagunaRouter, experts: Experts, shared: GatedMLP) -> None:
        self.experts = experts
        self.gate = router
        self.shared_experts = shared

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        beside = self.shared_experts(t, x)
        weights, numbers = self.gate(t, x)
        out = self.experts(t, x, weights, numbers, self.gate.chosen)
        out = ops.scale(t, out, "experts: scaled result")
        return ops.add(t, out, beside, "experts plus shared expert")


class Laguna(MiMoV2Flash):
    """The causal language model; tables and masks by the kind of layer, as MiMo has them."""

    caches = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config.over({}, {"num_key_value_heads": 8}), head_dim=128)
        kinds = layer_kinds(config, ("layer_types",), ["full_attention"] * s.layers, tuple(_ROTATED))
        mlps = ["dense"] + ["sparse"] * (s.layers - 1)
        mlps = layer_kinds(config, ("mlp_layer_types",), mlps, ("dense", "sparse"))
        heads = config.integers("num_attention_heads_per_layer", MAX_HEADS) or [s.heads] * s.layers
        if len(heads) != s.layers or any(not each or each % s.kv_heads for each in heads):
            raise InvalidInput(
                f"config.num_attention_heads_per_layer must be {s.layers} multiples of num_key_value_heads {s.kv_heads}",
                field="config.num_attention_heads_per_layer",
                hint="compare with the model's config.json on the Hub",
            )
        window = config.integer("sliding_window", default=512, high=2**31)
        experts = config.integer("num_experts", "num_local_experts", default=256, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(8, experts), high=experts)
        width = config.integer("moe_intermediate_size", default=512)
        shared = config.integer("shared_expert_intermediate_size", default=512)
        bias, gating = config.flag("attention_bias", False), config.entries.get("gating", True)
        config.refuse("moe_apply_router_weight_on_input", "router weights on the experts' input")
        capped = config.number("moe_router_logit_softcapping", 0.0) > 0

        def layer(kind: tuple[str, str, int]) -> MiMoLayer:
            attention = LagunaAttention(replace(s, heads=kind[2]), kind[0], bias, gating in (True, "per-head"))
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if kind[1] == "sparse":
                router = LagunaRouter(s.hidden, experts, chosen)
                router.capped = capped
                mlp = LagunaMoe(router, Experts(s.hidden, width, experts, s.act), GatedMLP(s.hidden, shared, act=s.act))
            return MiMoLayer(s, attention, mlp)

        windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
        self.assemble(s.with_windows(windows), layer, list(zip(kinds, mlps, heads, strict=True)))
        self._rotated = {kind: self._turned(config, kind, s.head_dim, _ROTATED[kind]) for kind in sorted(set(kinds))}
        self._sparse = "sparse" in mlps
        self.buffer_bytes = sum(turned // 2 * 4 * 2 for turned in self._rotated.values())

    def attention_for(self, recipe: Recipe) -> str:
        """Any."""
        return CausalDecoder.attention_for(self, recipe)

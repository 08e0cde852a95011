"""AFMoE (Trinity): four norms a layer, gated attention that turns only where it slides, experts chosen by sigmoid.

Source: transformers 5.23, models/afmoe/modeling_afmoe.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, LateCastRMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, Router, best
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import MAX_HEADS, Shape, by_layer_types
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import divide_by, gather
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class AfmoeAttention(SelfAttention):
    """A sigmoid gate of its own projection on the result."""

    def __init__(self, s: Shape, window: int | None, bias: bool) -> None:
        super().__init__(s, window, bias=bias, output_bias=bias)
        self.q_norm = LateCastRMSNorm(s.head_dim)
        self.k_norm = LateCastRMSNorm(s.head_dim)
        self.gate_proj = Linear(s.hidden, s.heads * s.head_dim, name="attention gate")
        self._turns = window is not None

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self.s, self.s.head_dim
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        gate = self.gate_proj(t, x)
        q = self.q_norm(t, q)
        k = self.k_norm(t, k)
        if self._turns:
            q, k = rotate_part(t, q, k, call.shared["rotary"], s.rotated)
        out = self.kernel(call)(t, q, k, v, call.masks[self.mask]).view(s.heads * width)
        out = ops.mul(t, out, ops.sigmoid(t, gate, "attention: sigmoid of the gate"), "attention: gated result")
        result: Tensor = self.o_proj(t, out)
        return result


class Logits(Router):
    """The router's linear layer, whose weight PEFT adapts as a parameter."""

    linear = True

    def forward(self, t: Tape, x: Tensor) -> Tensor:  # type: ignore[override]
        """Shapes: (rows, hidden) to (rows, experts)."""
        adapted = self.adapter and t.adapters
        if self.weight.packing and not adapted:
            return self.weight.packing.linear(t, self, x)
        weight = self.adapter.weight(t, "weight", self.weight) if adapted else None
        return ops.linear(t, x, self.weight, self.label, None, weight)


class AfmoeRouter(Module):
    """Sigmoid scores in float32; the best by score plus bias, weighted by the score alone."""

    def __init__(self, hidden: int, experts: int, chosen: int) -> None:
        self.gate = Logits(hidden, experts, chosen)
        self.chosen = chosen

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        logits = t.local(ops.cast(t, self.gate(t, x), "float32", "router: logits in float32"))
        scores = ops.sigmoid(t, logits, "router: scores")
        with t.temporary(scores.numel, "float32", scores.width, "router: biased scores") as biased:
            _, numbers = best(t, biased, self.chosen)
        values = gather(t, scores, numbers, "router: chosen scores")
        total = ops.total(t, values, "router: sum of the chosen scores", numel=TOKENS, width=1)
        values = divide_by(t, values, total, "router: normed scores")
        return ops.scale(t, values, "router: weights"), numbers


class AfmoeMoe(Module):
    """Router, shared expert, experts; the bias is a parameter that never trains."""

    def __init__(self, router: AfmoeRouter, shared: GatedMLP, experts: Experts, number: int) -> None:
        self.router = router
        self.shared_experts = shared
        self.experts = experts
        self.expert_bias = Parameter((number,))
        self.expert_bias.frozen = True
        self.chosen = router.chosen

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        weights, numbers = self.router(t, x)
        beside = self.shared_experts(t, x)
        routed = self.experts(t, x, weights, numbers, self.chosen)
        return ops.add(t, beside, routed, "experts plus shared expert")


class AfmoeLayer(Module):
    """Norms before and behind each branch."""

    def __init__(self, s: Shape, attention: AfmoeAttention, mlp: Module) -> None:
        self.self_attn = attention
        for name in ("input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"):
            setattr(self, name, LateCastRMSNorm(s.hidden))
        self.mlp = mlp

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.pre_mlp_layernorm(t, hidden)
        hidden = self.mlp(t, hidden)
        hidden = self.post_mlp_layernorm(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Afmoe(CausalDecoder):
    """The causal language model."""

    both_masks = True
    expert_targets = EXPERT_TARGETS
    float32_modules = frozenset(
        {"input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm", "q_norm", "k_norm",
         "norm", "expert_bias"}
    )  # fmt: skip

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, head_dim=128)
        window = config.integer("sliding_window", default=1024, high=2**31)
        every = config.integer("global_attn_every_n_layers", default=4, high=MAX_LAYERS)
        default = tuple(window if (index + 1) % every else None for index in range(s.layers))
        s = s.with_windows(by_layer_types(config, s.layers, default, window))
        dense = config.integer("num_dense_layers", default=1, low=0, high=MAX_LAYERS)
        experts = config.integer("num_experts", "num_local_experts", default=64, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(6, experts), high=experts)
        width = config.integer("moe_intermediate_size", default=1408)
        shared = config.integer("num_shared_experts", default=2, high=MAX_HEADS)
        bias = config.flag("attention_bias", False)
        self._scaled = config.flag("mup_enabled", False)

        def layer(kind: tuple[int | None, bool]) -> AfmoeLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if not kind[1]:
                router, beside = AfmoeRouter(s.hidden, experts, chosen), GatedMLP(s.hidden, width * shared, act=s.act)
                mlp = AfmoeMoe(router, beside, Experts(s.hidden, width, experts, s.act), experts)
            return AfmoeLayer(s, AfmoeAttention(s, kind[0], bias), mlp)

        self.assemble(
            s, layer, [(window, index < dense) for index, window in enumerate(s.windows)], norm=LateCastRMSNorm
        )

    def scaled_embeddings(self, t: Tape, tokens: Tensor, call: Call) -> Tensor:
        """Times the square root of the width, where the config asks for it."""
        return ops.scale(t, tokens, "embeddings, scaled") if self._scaled else tokens

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

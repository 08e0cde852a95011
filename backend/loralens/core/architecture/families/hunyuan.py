"""Hunyuan, dense and with experts: Llama with norms on query and key, behind the rotary embedding.

Source: transformers 5.23, models/{hunyuan_v1_dense,hunyuan_v1_moe}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, best
from loralens.core.architecture.shape import Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import divide_by
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class HunyuanAttention(SelfAttention):
    """Turned, then normed head by head."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        self.query_layernorm = RMSNorm(s.head_dim)
        self.key_layernorm = RMSNorm(s.head_dim)

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        q, k, v = self.project(t, x)
        q, k = self.position(t, q, k, call)
        q = self.query_layernorm(t, q)
        k = self.key_layernorm(t, k)
        out = self.kernel(call)(t, q, k, v, call.masks["full"])
        return self.output(t, out.view(self.s.heads * self.s.head_dim))


class HunyuanDense(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        bias = config.flag("attention_bias", False)
        self.assemble(s, lambda _: DecoderLayer(s, HunyuanAttention(s, bias)), s.windows)


class HunyuanGate(Module):
    """A linear layer scores the experts, in float32 where its weight is held so."""

    def __init__(self, hidden: int, experts: int, chosen: int) -> None:
        self.wg = Linear(hidden, experts, name="router")
        self.wg.weight.held_in = "float32"
        self.chosen = chosen

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        if self.wg.weight.dtype == "float32" and self.wg.weight.packing is None:
            x = ops.cast(t, x, "float32", "router: input in float32")
        logits = t.local(self.wg(t, x))
        scores = ops.softmax(t, logits, "float32", "router: scores")
        values, numbers = best(t, scores, self.chosen)
        total = ops.total(t, values, "router: sum of the chosen scores", numel=TOKENS, width=1)
        values = divide_by(t, values, total, "router: normed scores")
        return ops.cast(t, values, logits.dtype, "router: weights, cast back"), numbers


class HunyuanExperts(Module):
    """The shared MLP first, then the experts."""

    def __init__(self, gate: HunyuanGate, experts: Experts, shared: GatedMLP) -> None:
        self.gate = gate
        self.experts = experts
        self.shared_mlp = shared

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        beside = self.shared_mlp(t, x)
        weights, numbers = self.gate.forward(t, x)
        out = self.experts(t, x, weights, numbers, self.gate.chosen)
        return ops.add(t, out, beside, "experts plus shared expert")


class HunyuanMoe(CausalDecoder):
    """Experts in every layer."""

    expert_targets = EXPERT_TARGETS

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        bias = config.flag("attention_bias", False)
        listed = (
            config.integers("num_experts") if isinstance(config.entries.get("num_experts"), (list, tuple)) else None
        )
        if listed is not None and len(set(listed)) > 1:
            raise UnsupportedArchitecture(
                "layers with different numbers of experts are not modelled", field="config.num_experts"
            )
        experts = listed[0] if listed else config.integer("num_experts", default=1, high=MAX_EXPERTS)
        several = config.integers("moe_topk") if isinstance(config.entries.get("moe_topk"), (list, tuple)) else None
        if several is not None and len(set(several)) > 1:
            raise UnsupportedArchitecture(
                "layers that choose different numbers of experts are not modelled", field="config.moe_topk"
            )
        chosen = several[0] if several else config.integer("moe_topk", default=1, high=experts)

        def layer(_: object) -> DecoderLayer:
            gate = HunyuanGate(s.hidden, experts, chosen)
            shared = GatedMLP(s.hidden, s.intermediate, act=s.act)
            mlp = HunyuanExperts(gate, Experts(s.hidden, s.intermediate, experts, s.act), shared)
            return DecoderLayer(s, HunyuanAttention(s, bias), mlp)

        self.assemble(s, layer, s.windows)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]

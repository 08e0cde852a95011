"""DeepSeek-V4's mixture: gate and up are clamped, scores are roots of softplus, and early layers choose experts by token.

Source: transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py; activations.py, `SqrtSoftplusActivation`.
"""

from __future__ import annotations

from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import Experts, Router
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import divide_by, gather, softplus
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class LimitedMLP(Module):
    """Gate and up are clamped before they meet."""

    def __init__(self, hidden: int, intermediate: int, bias: bool) -> None:
        self.gate_proj = Linear(hidden, intermediate, bias, name="mlp gate")
        self.up_proj = Linear(hidden, intermediate, bias, name="mlp up")
        self.down_proj = Linear(intermediate, hidden, bias, name="mlp down")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        raw = self.gate_proj(t, x)
        gate = t.local(t.replace(raw, ops.clamp(t, raw, "mlp: clamped gate")))
        raw = self.up_proj(t, x)
        up = t.local(t.replace(raw, ops.clamp(t, raw, "mlp: clamped up")))
        activated = derivatives.silu(t, gate, "mlp: activated gate")
        product = ops.mul(t, activated, up, "mlp: product")
        t.end(activated)
        out: Tensor = self.down_proj(t, product)
        return out


class LimitedExperts(Experts):
    """Gate and up of every expert are clamped before they meet."""

    def _gate(self, t: Tape, fused: Tensor) -> Tensor:
        gate, up = ops.split(t, fused, [self._intermediate] * 2, "experts: gate and up")
        gate = ops.clamp(t, gate, "experts: clamped gate")
        up = ops.clamp(t, up, "experts: clamped up")
        activated = derivatives.silu(t, gate, "experts: activated gate")
        return ops.mul(t, activated, up, "experts: product")


class RootRouter(Router):
    """Scores are roots of softplus; which experts run is chosen by the best of them, or by a table of the tokens."""

    def __init__(self, hidden: int, experts: int, chosen: int, *, by_token: bool) -> None:
        super().__init__(hidden, experts, chosen)
        self.by_token = by_token

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        logits = ops.linear(t, x, self.weight, "router: logits")
        wide = softplus(t, logits, "router: softplus")
        scores = t.local(derivatives.sqrt(t, wide, "router: scores"))
        t.end(wide)
        rows = TOKENS * self.chosen
        if self.by_token:
            numbers = t.new(rows, "int64", self.chosen, "router: chosen experts")
        else:
            biased = t.new(scores.numel, scores.dtype, scores.width, "router: biased scores")
            values = t.new(rows, scores.dtype, self.chosen, "router: biased scores of the chosen")
            numbers = t.new(rows, "int64", self.chosen, "router: chosen experts")
            t.end(biased, values)
        weights = gather(t, scores, numbers, "router: chosen scores")
        total = ops.total(t, weights, "router: sum of the chosen scores", numel=TOKENS, width=1)
        total = t.replace(total, ops.shift(t, total, "router: sum of the chosen scores + eps"))
        weights = t.replace(weights, divide_by(t, weights, total, "router: normed scores"))
        t.end(total)
        return t.replace(weights, ops.scale(t, weights, "router: weights")), numbers


class V4Moe(Module):
    """Router, experts and an MLP that every token passes."""

    def __init__(self, router: RootRouter, experts: Experts, shared: LimitedMLP) -> None:
        self.gate = router
        self.experts = experts
        self.shared_experts = shared

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        weights, numbers = self.gate(t, x)
        routed = t.local(self.experts(t, x, weights, numbers, self.gate.chosen))
        beside = self.shared_experts(t, x)
        return ops.add(t, routed, beside, "experts plus shared expert")

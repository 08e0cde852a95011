"""Experts one after the other, each an MLP of linear layers: how transformers ran mixtures before version 5.

Source: transformers 4.48, models/mixtral/modeling_mixtral.py `MixtralSparseMoeBlock`. Linear layers can be quantized and
carry adapters, unlike the fused tensors of today. Rows per expert depend on routing: an equal share is assumed.
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE, TOKENS
from loralens.core.tape.tape import Tape

EQUAL_SHARES: Final = "every expert gets an equal share of the tokens (transformers before 5 runs experts one by one)"


class ExpertMLP(Module):
    """`w2(act(w1(x)) * w3(x))`."""

    def __init__(self, hidden: int, intermediate: int, act: str) -> None:
        self.w1 = Linear(hidden, intermediate, name="expert gate")
        self.w2 = Linear(intermediate, hidden, name="expert down")
        self.w3 = Linear(hidden, intermediate, name="expert up")
        self._act = act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        gate = activation(t, self.w1(t, x), self._act, "expert: activated gate")
        return self.w2(t, ops.mul(t, gate, self.w3(t, x), "expert: product"))


class LoopedExperts(Module):
    """Router and experts; each expert takes its rows, and adds its result to the sum in place."""

    def __init__(self, hidden: int, intermediate: int, experts: int, chosen: int, act: str) -> None:
        self.gate = Linear(hidden, experts, name="router")
        self.experts = Module()
        for index in range(experts):
            setattr(self.experts, str(index), ExpertMLP(hidden, intermediate, act))
        self._hidden, self._experts, self._chosen = hidden, experts, chosen

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        logits = t.local(self.gate(t, x))
        scores = ops.softmax(t, logits, "float32", "router: scores")
        weights = ops.slice_last(t, scores, self._chosen, "router: chosen scores")
        weights = ops.cast(t, ops.scale(t, weights, "router: weights"), x.dtype, "router: weights")
        t.local(t.new(TOKENS * self._chosen, "int64", self._chosen, "router: chosen experts"))
        total = t.new(x.numel, x.dtype, self._hidden, "experts: sum")
        t.local(t.new(TOKENS * (self._chosen * self._experts), "int64", 1, "router: one-hot mask"))
        for _, expert in self.experts.children():
            total = self._add(t, expert, x, weights, total)
        return total

    def _add(self, t: Tape, expert: Module, x: Tensor, weights: Tensor, total: Tensor) -> Tensor:
        rows = ONE * max(1, t.validity.pinned_tokens() * self._chosen // self._experts)
        index = t.new(rows * 2, "int64", 2, "experts: rows of one expert")
        share = ops.indexed(t, x, index, rows * self._hidden, self._hidden, "experts: input of one")
        result = expert(t, share)
        factor = ops.indexed(t, weights, index, rows, 1, "experts: weights of one")
        weighted = ops.mul(t, result, factor, "experts: weighted")
        out = Tensor(total.storage, total.numel, total.dtype, total.width)
        numel, dtype, width = weighted.numel, weighted.dtype, weighted.width

        def apply(g: Tensor) -> list[Tensor]:
            return [g.view(), t.new(numel, dtype, width, "gradient: experts: weighted", "temporaries")]

        t.record("experts: sum", [out], [total, weighted], [index], apply)
        return out

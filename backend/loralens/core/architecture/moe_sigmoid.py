"""Routers that score every expert by itself, with a sigmoid, and choose with a bias that never trains (DeepSeek-V3's idea).

Source: transformers 5.23, `MiniMaxM2TopKRouter`, `HYV3TopKRouter`, `Lfm2MoeTopKRouter`. The bias is a buffer of one number per
expert, which is not booked.
"""

from __future__ import annotations

from loralens.core.architecture.moe import Router
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import divide_by, gather
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class SigmoidRouter(Router):
    """Sigmoid scores; the best are chosen by score plus bias, and weighted by the score alone.

    `upcasts`: logits are made float32 before the sigmoid. `scaled`: the weights are multiplied at the end. `in_place`: they are
    divided by their sum in their own dtype, which autocast does not widen then.
    """

    upcasts = in_place = False
    scaled = True
    biased = True
    normed = True

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        weight = self.adapter.weight(t, "weight", self.weight) if self.adapter else None
        if self._float32:
            x = ops.cast(t, x, "float32", "router: input in float32")
            weight = ops.cast(
                t, t.parameter(self.weight) if weight is None else weight, "float32", "router: weight in float32"
            )
        logits = t.local(ops.linear(t, x, self.weight, "router: logits", self.bias, weight))
        wide = ops.cast(t, logits, "float32", "router: logits in float32") if self.upcasts else logits.view()
        scores = self.scored(t, wide)
        t.end(wide)
        biased = t.new(scores.numel, "float32" if self.biased else scores.dtype, scores.width, "router: biased scores")
        chosen = t.new(TOKENS * self.chosen, biased.dtype, self.chosen, "router: biased scores of the chosen")
        numbers = t.new(TOKENS * self.chosen, "int64", self.chosen, "router: chosen experts")
        values = gather(t, scores, numbers, "router: chosen scores")
        if self.normed:
            dtype = "float32" if t.autocast else values.dtype  # of a sum under autocast
            total = ops.total(t, values, "router: sum of the chosen scores", numel=TOKENS, width=1, dtype=dtype)
            divided = divide_by(t, values, total, "router: normed scores")
            values = ops.cast(t, divided, values.dtype, "router: normed scores") if self.in_place else divided
        t.end(biased, chosen)
        return (ops.scale(t, values, "router: weights") if self.scaled else values), numbers

    def scored(self, t: Tape, logits: Tensor) -> Tensor:
        """Every expert's score."""
        return ops.sigmoid(t, logits, "router: scores")


class GroupRouter(SigmoidRouter):
    """DeepSeek-V3's, which its successors repeat; which groups of experts are looked at takes only small tensors."""

    in_place = True


class SoftmaxGroupRouter(GroupRouter):
    """The same with a softmax in the logits' dtype, which autocast makes float32 (Mistral 4)."""

    def scored(self, t: Tape, logits: Tensor) -> Tensor:
        """Every expert's score."""
        return ops.softmax(t, logits, "float32" if t.autocast else None, "router: scores")

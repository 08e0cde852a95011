"""Experts one after the other as DeepSeek-MoE's and Ling's own code trains them: every row as often as it has experts, picked by truth values.

Source: inclusionAI/Ming-UniVision 3bbdd2f, mingunivision/modeling_bailing_moe.py (`BailingMoeSparseMoeBlock`); deepseek-ai's
modeling_deepseek.py (`DeepseekMoE`). Rows of an expert depend on routing: an equal share is assumed.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import Router
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE, TOKENS, Size
from loralens.core.tape.tape import Tape


class PickedExperts(Module):
    """Gated MLPs by their number."""

    def __init__(self, hidden: int, intermediate: int, experts: int, act: str) -> None:
        for index in range(experts):
            setattr(self, str(index), GatedMLP(hidden, intermediate, act=act))
        self.hidden, self.experts = hidden, experts

    def forward(self, t: Tape, x: Tensor, chosen: int) -> Tensor:
        """Shapes: x (rows x chosen, hidden) to the same."""
        into = t.new(x.numel, x.dtype, self.hidden, "experts: results")
        share = ONE * max(1, t.validity.pinned_tokens() * chosen // self.experts)
        picked = TOKENS * chosen
        for _, expert in self.children():
            result = expert(t, self.taken(t, x, picked, share))
            into = self.put(t, into, result, picked, share)
        return into

    def taken(self, t: Tape, x: Tensor, picked: Size, share: Size) -> Tensor:
        """One expert's rows; autograd keeps the truth values they were picked by."""
        mask = t.new(picked, "bool", 1, "experts: rows of one, as truth values")
        with t.temporary(share, "int64", 1, "experts: rows of one"):
            out = t.new(share * self.hidden, x.dtype, self.hidden, "experts: input of one")
        numel, dtype, width = x.numel, x.dtype, x.width

        def apply(g: Tensor) -> Tensor:
            whole = t.new(numel, dtype, width, "gradient: experts: input of one", "temporaries")
            with t.temporary(share, "int64", 1, "experts: rows of one", "temporaries"):
                return whole

        t.record("experts: input of one", [out], [x], derivatives.INDEX.kept(self=x, indices=mask), apply)
        return out

    def put(self, t: Tape, into: Tensor, result: Tensor, picked: Size, share: Size) -> Tensor:
        """Written over one expert's rows, in place."""
        mask = t.new(picked, "bool", 1, "experts: rows of one, as truth values")
        out = Tensor(into.storage, into.numel, into.dtype, into.width)
        of_into, of_result = (
            (x.numel, x.dtype, x.width, "gradient: experts: results", "temporaries") if x.node is not None else None
            for x in (into, result)
        )

        def apply(g: Tensor) -> list[Tensor | None]:
            found: list[Tensor | None] = [None, None]
            if of_into is not None:
                with t.temporary(share * self.hidden, into_dtype, self.hidden, "experts: zeros of one", "temporaries"):
                    found[0] = t.new(*of_into)
            found[1] = None if of_result is None else t.new(*of_result)
            return found

        into_dtype = into.dtype
        saved = derivatives.INDEX_PUT.kept(self=into, indices=mask, values=result)
        t.record("experts: results", [out], [into, result], saved, apply)
        return out


class PickedMLP(Module):
    """Router, experts and, for some, an MLP that every token passes."""

    def __init__(self, router: Router, experts: PickedExperts, shared: GatedMLP | None) -> None:
        self.experts = experts
        self.gate = router
        self.shared_experts = shared

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        weights, numbers = self.gate(t, x)
        chosen = self.gate.chosen
        hidden = ops.copy(t, x, "experts: rows repeated", x.numel * chosen, x.width)
        y = self.experts(t, hidden, chosen)
        y = _over_choices(t, ops.mul(t, y, weights, "experts: weighted"), x.numel)
        y = self.joined(t, x, y)
        t.local(numbers)
        if self.shared_experts is None:
            return y
        return ops.add(t, y, self.shared_experts(t, x), "experts plus shared expert")

    def joined(self, t: Tape, x: Tensor, y: Tensor) -> Tensor:
        """What becomes of the experts' sum: the input's dtype."""
        return ops.cast(t, y, x.dtype, "experts: result")


def _over_choices(t: Tape, x: Tensor, numel: Size) -> Tensor:
    """Each row's sum over its experts; the gradient is expanded, a view."""
    out = t.new(numel, x.dtype, x.width, "experts: sum")
    whole, width = x.numel, x.width
    t.record("experts: sum", [out], [x], [], lambda g: Tensor(g.storage, whole, g.dtype, width).as_view())
    return out

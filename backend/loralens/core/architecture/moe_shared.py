"""A sparse MLP whose shared expert runs first and joins last, through a gate of its own or as it is.

Source: transformers 5.23, `Qwen2MoeSparseMoeBlock`, `Ernie4_5_MoeSparseMoeBlock`.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import Experts, Router
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class SharedFirstMLP(Module):
    """Router, experts, and an MLP that every token passes first."""

    shared_name = "shared_experts"

    def __init__(self, router: Router, experts: Experts, shared: GatedMLP | None) -> None:
        self.gate = router
        self.experts = experts
        if shared is not None:
            setattr(self, self.shared_name, shared)

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        shared: Module | None = getattr(self, self.shared_name, None)
        beside = None if shared is None else shared(t, x)
        weights, numbers = self.gate(t, x)
        out: Tensor = self.experts(t, x, weights, numbers, self.gate.chosen)
        if beside is None:
            return out
        beside = self.weighted(t, x, beside)
        return ops.add(t, out, beside, "experts plus shared expert")

    def weighted(self, t: Tape, x: Tensor, beside: Tensor) -> Tensor:
        """What happens to the shared expert's result before it joins."""
        return beside


class GatedSharedMLP(SharedFirstMLP):
    """The shared expert is weighted by a sigmoid of one number per token (Qwen2-MoE)."""

    shared_name = "shared_expert"

    def __init__(self, router: Router, experts: Experts, shared: GatedMLP, hidden: int) -> None:
        super().__init__(router, experts, shared)
        self.shared_expert_gate = Linear(hidden, 1, name="shared expert: gate")

    def weighted(self, t: Tape, x: Tensor, beside: Tensor) -> Tensor:
        """Times the gate."""
        gate = ops.sigmoid(t, self.shared_expert_gate(t, x), "shared expert: sigmoid of the gate")
        return ops.mul(t, beside, gate, "shared expert, weighted")

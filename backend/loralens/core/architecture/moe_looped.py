"""Experts one after the other, each an MLP of linear layers: how transformers ran mixtures before version 5.

Source: transformers 4.48 and 4.57.1, models/{mixtral,qwen3_moe,…}/modeling_*.py (`MixtralSparseMoeBlock` and its likes). Linear
layers can be quantized and carry adapters, unlike the fused tensors of today. Rows per expert depend on routing: an equal
share is assumed.
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.causal import Root
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import Experts, Router
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE, TOKENS
from loralens.core.tape.tape import Tape

FUSED_SINCE: Final = (5,)
EQUAL_SHARES: Final = "every expert gets an equal share of the tokens (transformers before 5 runs experts one by one)"
NAMES: Final = ("gate_proj", "down_proj", "up_proj")
MIXTRAL_NAMES: Final = ("w1", "w2", "w3")
# families whose experts were a list of MLPs; those whose router was a linear layer, and how an expert's layers were called.
# source: transformers 4.57.1, models/NAME/modeling_NAME.py; gpt-oss, Llama 4, Granite's and DBRX's were stacked then too
SEPARATE: Final[dict[str, tuple[bool, tuple[str, str, str]]]] = {
    **dict.fromkeys(
        ("qwen2_moe", "qwen3_moe", "olmoe", "flex_olmo", "ernie4_5_moe", "jamba", "qwen3_next"), (True, NAMES)
    ),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe", "dots1"), (False, NAMES)),
    **dict.fromkeys(("minimax", "phimoe"), (True, MIXTRAL_NAMES)),
}


class ExpertMLP(Module):
    """`down(act(gate(x)) * up(x))`."""

    def __init__(self, hidden: int, intermediate: int, act: str, names: tuple[str, str, str] = MIXTRAL_NAMES) -> None:
        self._gate, self._down, self._up = names
        setattr(self, self._gate, Linear(hidden, intermediate, name="expert gate"))
        setattr(self, self._down, Linear(intermediate, hidden, name="expert down"))
        setattr(self, self._up, Linear(hidden, intermediate, name="expert up"))
        self._act = act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        gate, down, up = (getattr(self, name) for name in (self._gate, self._down, self._up))
        activated = activation(t, gate(t, x), self._act, "expert: activated gate")
        result: Tensor = down(t, ops.mul(t, activated, up(t, x), "expert: product"))
        return result


class SeparateExperts(Module):
    """Experts by their number; each takes its rows, and adds its result to the sum in place."""

    def __init__(self, hidden: int, intermediate: int, experts: int, act: str, names: tuple[str, str, str]) -> None:
        for index in range(experts):
            setattr(self, str(index), ExpertMLP(hidden, intermediate, act, names))
        self._hidden, self._experts = hidden, experts

    def forward(self, t: Tape, x: Tensor, weights: Tensor, numbers: Tensor | None, chosen: int) -> Tensor:
        """Shapes: x (rows, hidden), weights and numbers (rows, chosen), result (rows, hidden)."""
        total = t.new(x.numel, x.dtype, self._hidden, "experts: sum")
        t.local(t.new(TOKENS * (chosen * self._experts), "int64", 1, "router: one-hot mask"))
        for _, expert in self.children():
            total = self._add(t, expert, x, weights, total, chosen)
        return total

    def _add(self, t: Tape, expert: Module, x: Tensor, weights: Tensor, total: Tensor, chosen: int) -> Tensor:
        rows = ONE * max(1, t.validity.pinned_tokens() * chosen // self._experts)
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


class LinearRouter(Linear):
    """A router that is a linear layer: scores in float32, of which the best stay, back in the input's dtype."""

    def __init__(self, hidden: int, experts: int, chosen: int) -> None:
        super().__init__(hidden, experts, name="router")
        self.chosen, self._experts = chosen, experts

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        logits = t.local(super().forward(t, x))
        scores = ops.softmax(t, logits, "float32", "router: scores")
        weights = ops.slice_last(t, scores, self.chosen, "router: chosen scores")
        weights = ops.cast(t, ops.scale(t, weights, "router: weights"), x.dtype, "router: weights")
        numbers = t.local(t.new(TOKENS * self.chosen, "int64", self.chosen, "router: chosen experts"))
        return weights, numbers


class LoopedExperts(Module):
    """Mixtral's router and experts."""

    def __init__(self, hidden: int, intermediate: int, experts: int, chosen: int, act: str) -> None:
        self.gate = LinearRouter(hidden, experts, chosen)
        self.experts = SeparateExperts(hidden, intermediate, experts, act, MIXTRAL_NAMES)

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        weights, numbers = self.gate(t, x)
        out: Tensor = self.experts(t, x, weights, numbers, self.gate.chosen)
        return out


class _Statics(Module):
    def __init__(self, experts: int) -> None:
        self.e_score_correction_bias = Parameter((1, experts))
        self.multiplies = False  # added to scores


def separate(root: Root, model_type: str) -> None:
    """Put a list of MLPs in the place of every stack of experts, and a linear layer in the router's where it was one."""
    linear, names = SEPARATE[model_type]

    def change(layer: Module) -> None:
        for _, module in list(layer.walk()):
            stacked = vars(module).get("experts")
            if not isinstance(stacked, Experts):
                continue
            module.experts = SeparateExperts(*stacked.sizes, names)
            for part in vars(module).values():
                if isinstance(part, Linear):
                    part.packable = True
            for name, part in list(vars(module).items()):
                if linear and isinstance(part, Router):
                    setattr(module, name, LinearRouter(part.hidden, stacked.sizes[2], part.chosen))
            if model_type == "ernie4_5_moe":  # the correction was a frozen parameter, in a module of its own
                module.moe_statics = _Statics(stacked.sizes[2])

    for _, stack in root.stacks():
        stack.changed(change)
    root.expert_targets = None
    if model_type == "phimoe":  # its router was a linear layer like any other
        root.refused_targets = frozenset()
    root.experts_in_turn = True

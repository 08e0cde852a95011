"""Mixtures of experts: routers, and all experts' weights in one tensor, run as grouped matrix products.

Source: transformers 5.23, integrations/moe.py `grouped_mm_experts_forward` (the default): every chosen pair of token and
expert is one row, so the number of rows, tokens x experts per token, and with it the memory, does not depend on routing.
"""

from __future__ import annotations

from typing import Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.module import Module
from loralens.core.tape import derivatives, ops
from loralens.core.tape.cost import Costs
from loralens.core.tape.folding import masked
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.tape import Tape
from loralens.core.tape.work import product

ROUTING: Final = (
    "experts run as grouped products (transformers' default): memory is the same for any routing of the tokens"
)


class Router(Module):
    """Scores of all experts in float32, of which the best `chosen` stay. Shapes: weight (experts, hidden)."""

    linear = False  # a linear layer of its own, which quantizers pack
    label = "router: logits"

    def __init__(
        self,
        hidden: int,
        experts: int,
        chosen: int,
        *,
        bias: bool = False,
        float32: bool = False,
        casts_back: bool = False,  # the weights, to the logits' dtype; else they stay float32
    ) -> None:
        self.weight = Parameter((experts, hidden))
        self.bias = Parameter((experts,)) if bias else None
        self.hidden, self.chosen = hidden, chosen
        self.in_features, self.out_features = hidden, experts
        self._experts, self._float32, self._casts_back = experts, float32, casts_back

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        weight = self.adapter.weight(t, "weight", self.weight) if self.adapter and t.adapters else None
        if self._float32:
            x = ops.cast(t, x, "float32", "router: input in float32")
            weight = ops.cast(
                t, t.parameter(self.weight) if weight is None else weight, "float32", "router: weight in float32"
            )
        logits = ops.linear(t, x, self.weight, "router: logits", self.bias, weight)
        dtype = logits.dtype
        scores = ops.softmax(t, logits, "float32", "router: scores")
        t.end(logits)
        values, numbers = best(t, scores, self.chosen)
        values = self.weights(t, values)
        if self._casts_back:
            values = ops.cast(t, values, dtype, "router: weights, cast back")
        return values, numbers

    def weights(self, t: Tape, values: Tensor) -> Tensor:
        """From the chosen scores to what the experts' results are multiplied by."""
        return ops.scale(t, values, "router: weights")


def best(t: Tape, scores: Tensor, chosen: int) -> tuple[Tensor, Tensor]:
    """`topk`: the best scores of each row and their numbers, which backward scatters by. Shapes: (rows, chosen) each."""
    picked = ops.divide(scores.numel, scores.width) * chosen
    values, _ = t.result(picked, scores.dtype, chosen, "router: chosen scores")
    numbers, _ = t.result(picked, "int64", chosen, "router: chosen experts")
    numel, dtype, width = scores.numel, scores.dtype, scores.width
    t.record(
        "router: chosen scores",
        [values],
        [scores],
        derivatives.TOPK.kept(self=scores, indices=numbers),
        lambda g: t.new(numel, dtype, width, "gradient: router: scores", "temporaries"),
    )
    return values, numbers


class Experts(Module):
    """Gate, up and down of all experts. `transposed`: inputs first, with biases and alternating gate and up (gpt-oss)."""

    stacked = True

    def __init__(self, hidden: int, intermediate: int, experts: int, act: str, *, transposed: bool = False) -> None:
        up = (experts, hidden, 2 * intermediate) if transposed else (experts, 2 * intermediate, hidden)
        down = (experts, intermediate, hidden) if transposed else (experts, hidden, intermediate)
        self.gate_up_proj = Parameter(up)
        self.down_proj = Parameter(down)
        self.gate_up_proj_bias = Parameter((experts, 2 * intermediate)) if transposed else None
        self.down_proj_bias = Parameter((experts, hidden)) if transposed else None
        self._hidden, self._intermediate, self._experts, self._act = hidden, intermediate, experts, act
        self.transposed = transposed
        self.sizes = (hidden, intermediate, experts, act)
        self.divided = False  # other GPUs have other experts (`core.partition.expert`)

    def forward(self, t: Tape, x: Tensor, weights: Tensor, numbers: Tensor, chosen: int) -> Tensor:
        """Shapes: x (rows, hidden), weights and numbers (rows, chosen), result (rows, hidden)."""
        rows = ops.divide(x.numel * chosen, x.width)
        ordered = t.new(rows, "int64", 1, "experts: sorted numbers")
        order = t.new(rows, "int64", 1, "experts: order of the rows")
        source = t.new(rows, "int64", 1, "experts: source rows")
        selected = ops.indexed(t, x, source, x.numel * chosen, self._hidden, "experts: selected rows")
        t.end(source)
        weights = ops.indexed(t, weights.view(1), order, rows, 1, "experts: weights in order")
        counts = t.new(rows, "int32", 1, "experts: numbers, 32 bits")
        absent = t.local(t.new(rows, "bool", 1, "experts: rows of other GPUs")) if self.divided else None
        if absent is not None:
            selected = _emptied(t, selected, absent)
        out = self.first(t, selected, absent)
        out, _ = self._grouped(t, out, "down_proj", self.down_proj_bias, self._hidden, "experts: down", absent)
        weighted = ops.mul(t, out, weights, "experts: weighted")
        inverse = t.new(rows, "int64", 1, "experts: order back")
        weighted = ops.indexed(t, weighted, inverse, weighted.numel, self._hidden, "experts: rows in token order")
        total = ops.total(t, weighted, "experts: sum", numel=x.numel)  # over each token's experts
        t.end(ordered, order, counts)
        return ops.cast(t, total, x.dtype, "experts: result")

    def first(self, t: Tape, selected: Tensor, absent: Tensor | None) -> Tensor:
        """From the selected rows to what the down projections take."""
        width = 2 * self._intermediate
        label = "experts: gate and up"
        out, spread = self._grouped(t, selected, "gate_up_proj", self.gate_up_proj_bias, width, label, absent)
        gated = self._gate(t, out)
        t.end(spread)  # `selected_biases` is set anew for the down projections
        return gated

    def _grouped(
        self, t: Tape, x: Tensor, own: str, bias: Parameter | None, width: int, label: str, absent: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The grouped product, and the bias of each row beside it."""
        weight: Parameter = getattr(self, own)
        # adapted weights are cached until the experts have run (torch's `parametrize.cached`, in PEFT's `ParamWrapper`)
        adapted = self.adapter and t.adapters
        w = t.local(self.adapter.weight(t, own, weight)) if adapted else _unpacked(t, weight, label)
        x = ops.cast(t, x, w.dtype, f"{label}: input in the weights' dtype")
        rows = ops.divide(x.numel * width, x.width)
        spread = ops.indexed(t, t.parameter(bias), None, rows, width, f"{label}: bias of each row") if bias else None
        out = t.new(rows, w.dtype, width, label)
        sizes = [(x.numel, x.dtype, x.width), (w.numel, w.dtype, w.width)]
        wants = [x.node is not None, w.node is not None]

        def apply(g: Tensor) -> list[Tensor | None]:
            return [
                t.new(*size, f"gradient: {label}", "temporaries") if wanted else None
                for size, wanted in zip(sizes, wants, strict=True)
            ]

        def costs() -> Costs:
            return product(out, x, w, x.numel * (2 * width), (wants[0], wants[1]))

        t.record(label, [out], [x, w], derivatives.GROUPED_MM.kept(self=x, mat2=w), apply, costs)
        if spread is not None:
            out = ops.add_in_place(t, out, spread)
        return (out if absent is None else masked(t, out, absent, f"{label}: rows of other GPUs emptied")), spread

    def _gate(self, t: Tape, fused: Tensor) -> Tensor:
        width = self._intermediate
        if not self.transposed:
            gate, up = ops.split(t, fused, [width] * 2, "experts: gate and up")
            return ops.mul(t, activation(t, gate, self._act, "experts: activated gate"), up, "experts: product")
        gate, up = (ops.slice_last(t, fused, width, f"experts: {name}") for name in ("gate", "up"))
        gate = ops.clamp(t, gate, "experts: clamped gate")
        up = ops.clamp(t, up, "experts: clamped up")
        activated = activation(t, gate, "quick_gelu", "experts: activated gate")
        return ops.mul(t, ops.shift(t, up, "experts: up + 1"), activated, "experts: product")


def _emptied(t: Tape, x: Tensor, mask: Tensor) -> Tensor:
    """`x.masked_fill_(mask, 0)`: x's own storage, and a gradient of its own."""
    out = Tensor(x.storage, x.numel, x.dtype, x.width)
    size = (x.numel, x.dtype, x.width)
    saved = derivatives.MASKED_FILL.kept(self=x, mask=mask)
    t.record(
        "experts: rows of other GPUs emptied",
        [out],
        [x],
        saved,
        lambda g: t.new(*size, "gradient: rows of other GPUs emptied", "temporaries"),
    )
    return out


def _unpacked(t: Tape, weight: Parameter, label: str) -> Tensor:
    """The weight as it is, or packed ones written out whole (bitsandbytes nn/parametrize.py, `Bnb4bitParametrization`)."""
    if weight.packing is None:
        return t.parameter(weight)
    return t.new(
        weight.numel, weight.packing.compute_dtype, weight.shape[-1], f"{label}: weights unpacked", "temporaries"
    )


# what people call the parts of the experts, and the stacked weights they are in today
MIXTRAL_TARGETS: Final = {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"}
EXPERT_TARGETS: Final = {
    "gate": "gate.weight",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "down_proj": "down_proj",
}


class SparseMLP(Module):
    """Router, experts and, for some families, an MLP that every token passes.

    `experts_first`: the experts are defined, and so come to the optimizer, before the router.
    """

    def __init__(
        self,
        router: Router,
        experts: Experts,
        shared: GatedMLP | None = None,
        router_name: str = "gate",
        *,
        experts_first: bool = False,
    ) -> None:
        parts: list[tuple[str, Module]] = [(router_name, router), ("experts", experts)]
        for name, part in reversed(parts) if experts_first else parts:
            setattr(self, name, part)
        self.shared_experts = shared
        self.chosen = router.chosen  # experts of each token
        self._name = router_name

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        router: Router = getattr(self, self._name)
        weights, numbers = router(t, x)
        out = self.experts(t, x, weights, numbers, router.chosen)
        if self.shared_experts is not None:
            out = ops.add(t, out, self.shared_experts(t, x), "experts plus shared expert")
        return out


__all__ = ["EXPERT_TARGETS", "MIXTRAL_TARGETS", "ROUTING", "Experts", "Router", "SparseMLP"]

"""SAM's attention, by its own code and by the efficient kernel.

How far a query lies from a key, down and across, is learned: two products of the query with tables of distances, whose sum is
as large as the scores.

Source: transformers 5.23, models/{got_ocr2,deepseek_ocr2}/modeling_*.py (`GotOcr2VisionAttention`,
`DeepseekOcr2SamVisionSdpaAttention`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.architecture.families.qwen_vision import unbound
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import derivatives, ops
from loralens.core.tape.cost import attention
from loralens.core.tape.graph import Tensor
from loralens.core.tape.kernels import ALIGNMENT
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.position_bias import padded
from loralens.core.tape.selecting import interpolated
from loralens.core.tape.size import ONE, ZERO, Size
from loralens.core.tape.work import bytes_of

if TYPE_CHECKING:
    from loralens.core.architecture.config import Config
    from loralens.core.tape.tape import Tape


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run of the tower sees: patches down and across, and whether it sees more pictures than one."""

    grid: int
    several: bool


def relaid(t: Tape, x: Tensor, label: str) -> Tensor:
    """A copy in another order of dimensions; its gradient is brought back into the first order by a copy too."""
    return derivatives.repeat(t, x, label)


def reordered(t: Tape, x: Tensor) -> Tensor:
    """x in another order of dimensions, a view; so is its gradient."""
    seen = x.view()
    t.record("another order", [seen], [x], [], lambda g: g.view().as_view())
    return seen


def laid_by_place(t: Tape, out: Tensor, layer: Linear) -> Tensor:
    """What a matrix gives; its gradient, which a convolution or an average laid with the channels first, is laid by place.

    An adapter has its own copy of the gradient, when it is scaled.
    """
    return in_order(t, out, layer.label) if layer.adapter is None else out


class SamAttention(Module):
    """One matrix for query, key and value; scores with learned distances. `side`: places that its tables are made for."""

    multiplies = False  # its tables of distances meet queries within attention

    def __init__(self, v: Config, hidden: int, heads: int, side: int) -> None:
        self.qkv = Linear(hidden, 3 * hidden, v.flag("qkv_bias", True), name="attention query, key and value")
        self.proj = Linear(hidden, hidden, True, name="attention output projection")
        self._width = hidden // heads
        self._distances = v.flag("use_rel_pos", True)
        if self._distances:
            self.rel_pos_h = Parameter((2 * side - 1, self._width))
            self.rel_pos_w = Parameter((2 * side - 1, self._width))
        self._hidden, self._heads = hidden, heads
        self._dropout = v.number("attention_dropout", 0.0, 0, 1)

    def forward(self, t: Tape, x: Tensor, seen: Seen) -> tuple[Tensor, Tensor | None]:
        """The result, and the probabilities where there are any, which the layer holds; `seen`: windows.

        Shapes: (windows * grid**2, hidden) to the same.
        """
        q, k, v = self._by_head(t, x, seen.several)
        out, weights = self.looked(t, q, k, v, seen)
        return self.proj(t, out.view(self._hidden)), weights

    def looked(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, seen: Seen) -> tuple[Tensor, Tensor | None]:
        """Scores, distances, softmax in float32."""
        pairs = q.numel // self._width * seen.grid**2
        flops = pairs * (2 * self._width)
        scaled = ops.scale(t, q, "attention query, scaled")
        weights = ops.matmul(t, scaled, k, pairs, 1, "attention: scores", flops=flops)
        t.end(scaled)
        if self._distances:
            weights = ops.add(t, weights, self.distances(t, q, seen), "attention: scores with distances")
        weights = ops.cast(
            t, ops.softmax(t, weights, "float32", "attention: softmax in float32"), q.dtype, "attention: probabilities"
        )
        dropped = t.local(ops.dropout(t, weights, self._dropout, "attention: dropout"))
        out = ops.matmul(t, dropped, v, q.numel, self._width, "attention: output by head", flops=flops)
        return (relaid if seen.several else ops.copy)(t, out, "attention: output by place"), weights

    def _by_head(self, t: Tape, x: Tensor, several: bool) -> list[Tensor]:
        """Query, key and value in one tensor, each by head; of one window they are views of what the matrix gives."""
        qkv = t.local(self.qkv(t, x))
        if not several:
            return [part.view(self._width) for part in unbound(t, qkv, self._hidden)]
        whole = relaid(t, qkv, "attention query, key and value: by head").view(3 * self._width)
        return ops.split(t, whole, [self._width] * 3, "attention query, key and value")

    def distances(self, t: Tape, q: Tensor, seen: Seen) -> Tensor:
        """As large as the scores, by head; held until attention is over."""
        return t.local(ops.copy(t, self._found(t, q, seen), "attention: distances by head"))

    def _found(self, t: Tape, q: Tensor, seen: Seen) -> Tensor:
        side = seen.grid
        down = self._places(t, self.rel_pos_h, side, "rows")
        across = self._places(t, self.rel_pos_w, side, "columns")
        query = in_order(t, q, "attention query")
        part = q.numel // self._width * side
        by_row = ops.copy(t, reordered(t, query), "attention query: by row")
        rows = ops.matmul(t, by_row, down, part, side, "attention: distances of rows")
        t.end(by_row)
        by_column = reordered(t, query)
        if not seen.several:
            by_column = ops.copy(t, by_column, "attention query: by column")
        columns = ops.matmul(t, by_column, across, part, side, "attention: distances of columns")
        return sum_of_all(t, rows, columns, part * side, "attention: distances")

    def _places(self, t: Tape, table: Parameter, side: int, name: str) -> Tensor:
        """The table's row for every pair of places."""
        label = f"attention: table of {name}"
        whole = t.parameter(table)
        if t.autocast is not None:
            whole = ops.cast(t, whole, "float32", f"{label}: input cast by autocast")
        resized = interpolated(t, whole, ONE * ((2 * side - 1) * self._width), label)
        return ops.indexed(t, resized, None, ONE * (side**2 * self._width), self._width, f"{label}: by pair")


def in_order(t: Tape, x: Tensor, label: str) -> Tensor:
    """x as it lies, a view; its gradient, which lies otherwise, is copied into x's order."""
    seen = x.view()
    numel, dtype, width = x.numel, x.dtype, x.width
    laid = f"gradient: {label}: in order"
    t.record("in order", [seen], [x], [], lambda g: t.new(numel, dtype, width, laid, "temporaries"))
    return seen


def sum_of_all(t: Tape, a: Tensor, b: Tensor, numel: Size, label: str) -> Tensor:
    """a and b, each spread along a dimension of the other; both gradients are summed."""
    out = t.new(numel, a.dtype, a.width, label)
    sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (a, b)]

    def apply(g: Tensor) -> list[Tensor | None]:
        return [t.new(n, d, w, f"gradient: {label}", "temporaries") if wanted else None for n, d, w, wanted in sizes]

    t.record(label, [out], [a, b], [], apply)
    return out


class FusedSamAttention(SamAttention):
    """The same by the efficient kernel, which takes the distances as a mask in rows of a multiple of 16 values.

    Source: torch 2.13 aten/src/ATen/native/transformers/attention.cpp (`pad_bias`) and cuda/attention.cu
    (`_efficient_attention_forward`): its logsumexp has rows of a multiple of 32.
    """

    def looked(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, seen: Seen) -> tuple[Tensor, Tensor | None]:
        """One kernel, whose result lies by place; gradients of query, key and value are laid by head, each by a copy."""
        keys = seen.grid**2
        rows = q.numel // self._width
        mask = self.distances(t, q, seen) if self._distances else None
        if seen.several:
            q, k, v = (in_order(t, x, f"attention {name}") for x, name in ((q, "query"), (k, "key"), (v, "value")))
        if t.autocast is not None:
            given = "attention: input cast by autocast"
            mask = None if mask is None else ops.cast(t, mask, t.autocast, given)
            v, k, q = (ops.cast(t, x, t.autocast, given) for x in (v, k, q))
        wide = rows * (keys + -keys % ALIGNMENT)
        if mask is not None and keys % ALIGNMENT:
            mask = padded(t, mask, wide)
        label = "attention (memory-efficient)"
        out = t.new(q.numel, q.dtype, self._width, f"{label}: output")
        logsumexp = t.new(rows // keys * (keys + -keys % 32), "float32", 1, f"{label}: logsumexp")
        state = t.new(ONE * 2, "int64", 1, f"{label}: random state")
        sizes = [(x.numel, x.dtype, x.width) for x in (q, k, v)]
        if mask is not None and mask.node is not None:
            sizes.append((wide, mask.dtype, 1))

        def apply(g: Tensor) -> list[Tensor]:
            return [t.new(*size, f"gradient: {label}", "temporaries") for size in sizes]

        kept = derivatives.EFFICIENT.kept(
            query=q, key=k, value=v, output=out, log_sumexp=logsumexp, attn_bias=mask, philox_seed=state
        )
        flops, moved = rows * (keys * 4 * self._width), bytes_of(q) * 4 + (ZERO if mask is None else bytes_of(mask))
        t.record(label, [out], [q, k, v, mask], kept, apply, lambda: attention("efficient", flops, moved))
        return out, None

"""Operators that choose among values, division and exponentials: gather, where, minimum, div, exp, expm1, softplus.

Source: PyTorch v2.13, tools/autograd/derivatives.yaml and torch/csrc/autograd/FunctionsManual.cpp; see `ops`.
"""

from __future__ import annotations

from loralens.core.question.precision import promote
from loralens.core.tape import derivatives
from loralens.core.tape.graph import Tensor
from loralens.core.tape.rows import like
from loralens.core.tape.size import Size
from loralens.core.tape.tape import Tape


def exp(t: Tape, x: Tensor, label: str) -> Tensor:
    """`exp(x)`, in float32 under autocast (aten/src/ATen/autocast_mode.h, float32 list); so are the next two."""
    return derivatives.exp(t, _wide(t, x, label), label)


def expm1(t: Tape, x: Tensor, label: str) -> Tensor:
    """`exp(x) - 1`."""
    return derivatives.expm1(t, _wide(t, x, label), label)


def softplus(t: Tape, x: Tensor, label: str) -> Tensor:
    """`log(1 + exp(x))`."""
    return derivatives.softplus(t, _wide(t, x, label), label)


def _wide(t: Tape, x: Tensor, label: str) -> Tensor:
    return x if t.autocast is None else derivatives.cast(t, x, "float32", f"{label}: input cast by autocast")


def gather(t: Tape, x: Tensor, index: Tensor, label: str) -> Tensor:
    """`x.gather(-1, index)`; backward adds the gradient into zeros of x's size. Shapes: x (rows, width), index (rows, n)."""
    out = t.new(index.numel, x.dtype, index.width, label)
    numel, dtype, width = x.numel, x.dtype, x.width
    saved = derivatives.GATHER.kept(self=x, index=index)
    t.record(label, [out], [x], saved, lambda g: like(t, numel, dtype, width, f"gradient: {label}"))
    return out


def where(t: Tape, condition: Tensor, a: Tensor, b: Tensor, label: str) -> Tensor:
    """a where the condition holds, b elsewhere; all of one size."""
    out = t.new(a.numel, promote(a.dtype, b.dtype), a.width, label)
    sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (a, b)]
    saved = derivatives.WHERE.kept(self=a, other=b, condition=condition)

    def apply(g: Tensor) -> list[Tensor | None]:
        return [like(t, n, d, w, f"gradient: {label}") if wanted else None for n, d, w, wanted in sizes]

    t.record(label, [out], [a, b], saved, apply)
    return out


def grid_sample(t: Tape, table: Tensor, grid: Tensor, numel: Size, label: str) -> Tensor:
    """Values of a table at places between its entries. Shapes: table (entries, width), grid (rows, 2) to (rows, width)."""
    out = t.new(numel, table.dtype, table.width, label)
    sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (table, grid)]

    def apply(g: Tensor) -> list[Tensor | None]:
        return [like(t, n, d, w, f"gradient: {label}") if wanted else None for n, d, w, wanted in sizes]

    t.record(label, [out], [table, grid], derivatives.GRID_SAMPLE.kept(input=table, grid=grid), apply)
    return out


def embedding_bag(t: Tape, table: Tensor, indices: Tensor, weights: Tensor, numel: Size, label: str) -> Tensor:
    """Weighted sums of a table's rows. Shapes: table (entries, width), indices and weights (rows, n) to (rows, width).

    Source: aten/src/ATen/native/cuda/EmbeddingBag.cu, torch 2.13: offsets, the bag of every index and the size of every bag
    are int64; backward sorts the indices, three int64 arrays.
    """
    assert isinstance(table.width, int)
    rows = numel // table.width
    offsets = t.new(rows, "int64", 1, f"{label}: offsets")
    out = t.new(numel, table.dtype, table.width, label)
    bags = t.new(indices.numel, "int64", indices.width, f"{label}: bags")
    sizes = t.new(rows, "int64", 1, f"{label}: sizes of bags")
    size = table.numel, table.dtype, table.width

    def apply(g: Tensor) -> Tensor:
        with t.temporary(indices.numel * 3, "int64", 1, f"{label} backward: sorted indices", "temporaries"):
            return like(t, *size, f"gradient: {label}")

    kept = derivatives.EMBEDDING_BAG.kept(
        weight=table, indices=indices, offsets=offsets, result1=bags, result2=sizes, per_sample_weights=weights
    )
    t.record(label, [out], [table], kept, apply)
    t.end(offsets, bags, sizes)
    return out


def padded(t: Tape, x: Tensor, numel: Size, label: str) -> Tensor:
    """x's rows written into a larger tensor. Shapes: (rows, width) to (more rows, width)."""
    out = t.new(numel, x.dtype, x.width, label)
    size = x.numel, x.dtype, x.width
    t.record(label, [out], [x], [], lambda g: like(t, *size, f"gradient: {label}"))
    return out


def interpolated(t: Tape, x: Tensor, numel: Size, label: str) -> Tensor:
    """A grid of vectors on a grid of another size. Shapes: (rows, width) to (other rows, width)."""
    out = t.new(numel, x.dtype, x.width, label)
    size = x.numel, x.dtype, x.width
    saved = derivatives.UPSAMPLE.kept(self=x)
    t.record(label, [out], [x], saved, lambda g: like(t, *size, f"gradient: {label}"))
    return out


def hidden_places(t: Tape, x: Tensor, mask: Tensor, label: str) -> Tensor:
    """x, with a number where the mask holds. Shapes: x (rows, width), mask (rows)."""
    out = t.new(x.numel, x.dtype, x.width, label)
    numel, dtype, width = x.numel, x.dtype, x.width
    saved = derivatives.MASKED_FILL.kept(self=x, mask=mask)
    t.record(label, [out], [x], saved, lambda g: like(t, numel, dtype, width, f"gradient: {label}"))
    return out


def clamp_by(t: Tape, x: Tensor, label: str) -> Tensor:
    """`clamp(x, low, high)` with limits that are tensors of one value and have no gradient."""
    out = t.new(x.numel, x.dtype, x.width, label)
    numel, dtype, width = x.numel, x.dtype, x.width
    saved = derivatives.CLAMP_TENSOR.kept(self=x)
    t.record(label, [out], [x], saved, lambda g: like(t, numel, dtype, width, f"gradient: {label}"))
    return out


def minimum(t: Tape, x: Tensor, label: str) -> Tensor:
    """`min(x, limit)` with a limit that is a tensor of one value and has no gradient."""
    out = t.new(x.numel, x.dtype, x.width, label)
    numel, dtype, width = x.numel, x.dtype, x.width

    def apply(g: Tensor) -> Tensor:
        equal = t.new(numel, "bool", width, f"gradient: {label}: equal", "temporaries")
        half = like(t, numel, dtype, width, f"gradient: {label}: half")
        gradient = like(t, numel, dtype, width, f"gradient: {label}")
        t.end(half, equal)
        t.end(t.new(numel, "bool", width, f"gradient: {label}: greater", "temporaries"))
        return gradient

    t.record(label, [out], [x], derivatives.MINIMUM.kept(self=x), apply)
    return out


def larger(t: Tape, a: Tensor, b: Tensor, label: str) -> Tensor:
    """`maximum(a, b)`, both of one size."""
    out = t.new(a.numel, a.dtype, a.width, label)
    numel, dtype, width, wants = a.numel, a.dtype, a.width, (a.node is not None, b.node is not None)

    def part() -> Tensor:
        equal = t.new(numel, "bool", width, f"gradient: {label}: equal", "temporaries")
        half = like(t, numel, dtype, width, f"gradient: {label}: half")
        gradient = like(t, numel, dtype, width, f"gradient: {label}")
        smaller = t.new(numel, "bool", width, f"gradient: {label}: smaller", "temporaries")
        t.end(smaller, half, equal)
        return gradient

    def apply(g: Tensor) -> list[Tensor | None]:
        return [part() if wanted else None for wanted in wants]

    t.record(label, [out], [a, b], derivatives.MAXIMUM.kept(self=a, other=b), apply)
    return out


def deviation(t: Tape, x: Tensor, label: str) -> Tensor:
    """`std(-1)`; backward subtracts the mean once more, and multiplies.

    Source: torch/csrc/autograd/FunctionsManual.cpp, `std_backward`, `var_backward`.
    """
    assert isinstance(x.width, int)
    rows = x.numel // x.width
    out = t.new(rows, x.dtype, 1, label)
    numel, dtype, width = x.numel, x.dtype, x.width

    def apply(g: Tensor) -> Tensor:
        of_variance = like(t, rows, dtype, 1, f"gradient: {label}: of the variance")
        scaled = like(t, rows, dtype, 1, f"gradient: {label}: scaled")
        with t.temporary(rows, dtype, 1, f"gradient: {label}: mean", "temporaries"):
            apart = like(t, numel, dtype, width, f"gradient: {label}: from the mean")
        product = like(t, numel, dtype, width, f"gradient: {label}")
        t.end(scaled, apart, of_variance)
        return product

    t.record(label, [out], [x], derivatives.STD.kept(self=x, result=out), apply)
    return out


def divide_by(t: Tape, a: Tensor, b: Tensor, label: str, numel: Size | None = None) -> Tensor:
    """`a / b`, b as large as a or broadcast over its last dimension."""
    dtype = promote(a.dtype, b.dtype)
    saved = derivatives.DIV.kept(self=a, other=b)
    t.saving([a, b], saved)
    out = t.new(a.numel, dtype, a.width, label)
    sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (a, b)]

    def apply(g: Tensor) -> list[Tensor | None]:
        (n, d, w, first), (own, other_dtype, other_width, second) = sizes
        found: list[Tensor | None] = [like(t, n, d, w, f"gradient: {label}") if first else None, None]
        if second:
            negated, quotient, again, product = (
                like(t, g.numel, dtype, g.width, f"gradient: {label}, {part}")
                for part in ("negated", "quotient", "quotient twice", "product")
            )
            t.end(negated, quotient, again)
            found[1] = product
            if own != g.numel:
                found[1] = t.replace(product, like(t, own, other_dtype, other_width, f"gradient: {label}, summed"))
        return found

    t.record(label, [out], [a, b], saved, apply)
    return out

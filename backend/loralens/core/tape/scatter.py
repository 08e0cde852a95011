"""Rows of one tensor put into places of another: pictures' tokens into the text's embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.tape import derivatives
from loralens.core.tape.graph import Tensor
from loralens.core.tape.rows import like

if TYPE_CHECKING:
    from loralens.core.tape.tape import Tape


def masked_scatter(t: Tape, into: Tensor, mask: Tensor, source: Tensor, label: str) -> Tensor:
    """`into.masked_scatter(mask, source)`. Shapes: into (rows, width), mask (rows), source (some rows, width).

    Source: aten/src/ATen/native/cuda/IndexKernel.cpp, torch 2.13: the kernel lays the mask out whole and sums it up; its
    backward selects by positions, one int64 in each of three dimensions.
    """
    out = t.new(into.numel, into.dtype, into.width, label)
    with t.temporary(into.numel, "bool", into.width, f"{label}: mask", "temporaries"):
        t.end(t.new(into.numel, "int64", into.width, f"{label}: prefix sum", "temporaries"))
    sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (into, source)]

    def apply(g: Tensor) -> list[Tensor | None]:
        (whole, rows) = sizes
        first = like(t, *whole[:3], f"gradient: {label}, without the places") if whole[3] else None
        if not rows[3]:
            return [first, None]
        second = like(t, *rows[:3], f"gradient: {label}, the places alone")
        t.end(t.new(rows[0] * 3, "int64", 1, f"{label} backward: positions", "temporaries"))
        return [first, second]

    t.record(label, [out], [into, source], derivatives.MASKED_SCATTER.kept(self=into, mask=mask, source=source), apply)
    return out


def put(t: Tape, into: Tensor, indices: Tensor | None, values: Tensor, label: str) -> Tensor:
    """`into[indices] = values`, in into's own storage; its gradient is a copy with the places zeroed."""
    out = Tensor(into.storage, into.numel, into.dtype, into.width)
    sizes = [(x.numel, x.dtype, x.width) if x.node is not None else None for x in (into, values)]
    saved = derivatives.INDEX_PUT.kept(self=into, indices=indices, values=values)
    t.record(
        label,
        [out],
        [into, values],
        saved,
        lambda g: [None if size is None else like(t, *size, f"gradient: {label}") for size in sizes],
    )
    return out


def put_into_copy(t: Tape, into: Tensor, indices: Tensor, values: Tensor, label: str) -> Tensor:
    """`into.index_put(indices, values)`, a new tensor; both gradients are new ones, the first with the places zeroed."""
    out = t.new(into.numel, into.dtype, into.width, label)
    sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (into, values)]
    saved = derivatives.INDEX_PUT.kept(self=into, indices=indices, values=values)

    def apply(g: Tensor) -> list[Tensor | None]:
        (whole, rows), first = sizes, None
        if whole[3]:
            with t.temporary(*rows[:3], f"gradient: {label}: zeros", "temporaries"):
                first = like(t, *whole[:3], f"gradient: {label}, without the places")
        return [first, like(t, *rows[:3], f"gradient: {label}, the places alone") if rows[3] else None]

    t.record(label, [out], [into, values], saved, apply)
    return out


def index_copied(t: Tape, into: Tensor, index: Tensor, source: Tensor, label: str) -> Tensor:
    """`into.index_copy(0, index, source)`, a new tensor. Shapes: into (entries, width), index (some rows), source (some rows, width)."""
    out = t.new(into.numel, into.dtype, into.width, label)
    sizes = [(x.numel, x.dtype, x.width) if x.node is not None else None for x in (into, source)]
    saved = derivatives.INDEX_COPY.kept(self=into, index=index, source=source)
    t.record(
        label,
        [out],
        [into, source],
        saved,
        lambda g: [None if size is None else like(t, *size, f"gradient: {label}") for size in sizes],
    )
    return out


def index_added(t: Tape, into: Tensor, index: Tensor, source: Tensor, label: str) -> Tensor:
    """`into.index_add_(0, index, source)`, in into's own storage, whose gradient passes on as it is."""
    out = Tensor(into.storage, into.numel, into.dtype, into.width)
    wanted, size = source.node is not None, (source.numel, source.dtype, source.width)
    t.record(
        label,
        [out],
        [into, source],
        derivatives.INDEX_ADD.kept(self=into, index=index, source=source),
        lambda g: [g.view(), like(t, *size, f"gradient: {label}") if wanted else None],
    )
    return out

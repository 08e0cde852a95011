"""Collectives inside a layer, as operators on the tape: what each makes, and what its backward makes.

Source: torch 2.13 distributed/_functional_collectives.py: results are new tensors; a gather or scatter along another
dimension than the first goes through a copy (`all_gather_tensor`: `torch.cat(torch.chunk(...))`); distributed/tensor/
_redistribute.py: the backward of a sum is the identity, that of a replicated input is a sum, and a gather's is a scatter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.graph import Tensor
from loralens.core.tape.rows import like
from loralens.core.tape.size import Size

if TYPE_CHECKING:
    from loralens.core.tape.tape import Tape

TENSOR = "tp"


def reduced(t: Tape, x: Tensor, label: str) -> Tensor:
    """A partial sum becomes the sum on every rank; its gradient is there already."""
    out = t.new(x.numel, x.dtype, x.width, f"{label}, summed over ranks")
    t.traffic.sent("all_reduce", x.numel * ITEM_BYTES[x.dtype], TENSOR, t.layer)
    t.record("all-reduce", [out], [x], [], lambda g: g.view())
    return out


def replicated(t: Tape, x: Tensor, label: str) -> Tensor:
    """What every rank has; its gradient is a partial sum that is summed."""
    out = x.view()
    number = t.layer

    def apply(g: Tensor) -> Tensor:
        t.traffic.sent("all_reduce", g.numel * ITEM_BYTES[g.dtype], TENSOR, number)
        return like(t, g.numel, g.dtype, g.width, f"gradient: {label}, summed over ranks")

    t.record("replicated", [out], [x], [], apply)
    return out


def gathered(t: Tape, x: Tensor, ranks: int, label: str, width: int | Size | None = None) -> Tensor:
    """All ranks' parts side by side; the gradient is summed and scattered. `width`: the result's last dimension."""
    number, source = t.layer, (x.numel, x.dtype, x.width)
    whole = x.numel * ranks
    out = _moved(t, whole, x.dtype, width or x.width, f"{label}, gathered")
    t.traffic.sent("all_gather", whole * ITEM_BYTES[x.dtype], TENSOR, number)

    def apply(g: Tensor) -> Tensor:
        if width is not None:  # along the last dimension every rank has the whole gradient, and takes its own part
            return like(t, *source, f"gradient: {label}, this rank's")
        t.traffic.sent("reduce_scatter", whole * ITEM_BYTES[g.dtype], TENSOR, number)
        with t.temporary(whole, g.dtype, g.width, f"gradient: {label}, laid out to be scattered", "temporaries"):
            return like(t, *source, f"gradient: {label}, scattered")

    t.record("all-gather", [out], [x], [], apply)
    return out


def scattered(t: Tape, x: Tensor, ranks: int, label: str) -> Tensor:
    """A partial sum becomes each rank's part of the sum; the gradient is gathered."""
    number, whole, dtype, width = t.layer, x.numel, x.dtype, x.width
    with t.temporary(whole, dtype, width, f"{label}, laid out to be scattered"):
        out, made = t.result(whole // ranks, dtype, width, f"{label}, scattered")
    if made:
        t.traffic.sent("reduce_scatter", whole * ITEM_BYTES[dtype], TENSOR, number)

    def apply(g: Tensor) -> Tensor:
        t.traffic.sent("all_gather", whole * ITEM_BYTES[dtype], TENSOR, number)
        return _moved(t, whole, dtype, width, f"gradient: {label}, gathered", "temporaries")

    t.record("reduce-scatter", [out], [x], [], apply)
    return out


def chunked(t: Tape, x: Tensor, ranks: int, label: str) -> Tensor:
    """Each rank copies its rows of what all have; the gradients are gathered.

    Source: torch 2.13 distributed/tensor/placement_types.py, `Shard._replicate_to_shard` (a clone of the chunk).
    """
    number, whole = t.layer, x.numel
    out = t.new(whole // ranks, x.dtype, x.width, f"{label}, this rank's part")

    def apply(g: Tensor) -> Tensor:
        t.traffic.sent("all_gather", whole * ITEM_BYTES[g.dtype], TENSOR, number)
        return like(t, whole, g.dtype, g.width, f"gradient: {label}, gathered")

    t.record("chunk", [out], [x], [], apply)
    return out


def rejoined(t: Tape, x: Tensor, ranks: int, label: str) -> Tensor:
    """The ranks' rows one after another; each rank keeps its rows of the gradient."""
    number, own = t.layer, (x.numel, x.dtype, x.width)
    whole = x.numel * ranks
    out = t.new(whole, x.dtype, x.width, f"{label}, gathered")
    t.traffic.sent("all_gather", whole * ITEM_BYTES[x.dtype], TENSOR, number)
    t.record("all-gather", [out], [x], [], lambda g: like(t, *own, f"gradient: {label}, this rank's"))
    return out


def _moved(t: Tape, numel: Size, dtype: str, width: int | Size, label: str, section: str | None = None) -> Tensor:
    """A gather's result, copied into order."""
    with t.temporary(numel, dtype, width, f"{label}, rank by rank", section):
        return t.new(numel, dtype, width, label, section)

"""Attention over pieces of one long row, a kernel call for each: pictures, frames or windows that do not see each other.

Source: transformers 5.23, models/qwen2_5_vl/modeling_qwen2_5_vl.py (`Qwen2_5_VLVisionAttention`): query, key and value are
split, every piece is attended to alone, and the results are concatenated. Backward's gradients of the pieces gather until
the split's own node lays them end to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

from loralens.core.tape import derivatives, ops
from loralens.core.tape.cost import Costs, attention
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE, Size
from loralens.core.tape.work import bytes_of

if TYPE_CHECKING:
    from loralens.core.tape.graph import Node
    from loralens.core.tape.tape import Tape


@dataclass(frozen=True, slots=True)
class Pieces:
    """How a batch's rows are cut: rows of the first piece, number of pieces, and pairs of rows that see each other."""

    first: Size
    count: Size
    pairs: Size


def attend(t: Tape, q: Tensor, k: Tensor, v: Tensor, heads: int, pieces: Pieces) -> Tensor:
    """Shapes: q, k, v (rows, heads * width) to the same.

    The first piece is walked, the others as one: forward only adds, and backward gives a piece's result back before it
    makes the piece's gradients, so that nothing between the ends can be a peak.
    """
    if t.autocast is not None:
        q, k, v = (ops.cast(t, x, t.autocast, "attention: input cast by autocast") for x in (q, k, v))
    width = _wide(q)
    rows, first = q.numel // width, pieces.first
    split = [_split(t, x, name, first * width) for x, name in ((q, "query"), (k, "key"), (v, "value"))]
    seen = first.times(first)
    parts = [_piece(t, [pair[0] for pair in split], heads, Pieces(first, ONE, seen))]
    if rows != first:
        others = Pieces(rows - first, pieces.count - ONE, pieces.pairs - seen)
        parts.append(_piece(t, [pair[1] for pair in split], heads, others))
    return ops.cat(t, parts, width, "attention: output of all pieces")


def _wide(x: Tensor) -> int:
    assert isinstance(x.width, int)
    return x.width


def _split(t: Tape, x: Tensor, name: str, first: Size) -> list[Tensor]:
    outs = [Tensor(x.storage, numel, x.dtype, x.width) for numel in (first, x.numel - first)]
    if not any(outs[1].numel):
        outs.pop()
    numel, dtype, width = x.numel, x.dtype, x.width
    t.record(
        f"attention: {name} by piece",
        outs,
        [x],
        [],
        lambda *g: t.new(numel, dtype, width, f"gradient: attention {name}, of all pieces", "temporaries"),
    )
    return outs


def _piece(t: Tape, parts: list[Tensor], heads: int, pieces: Pieces) -> Tensor:
    q, k, v = parts
    rows, calls = pieces.first, pieces.count
    flash = q.dtype != "float32"
    label = f"attention ({'flash' if flash else 'memory-efficient'})"
    out = t.new(q.numel, q.dtype, q.width, f"{label}: output")
    logsumexp = t.new(rows * heads, "float32", 1, f"{label}: logsumexp")
    state = t.new(calls * (3 if flash else 2), "int64", 1, f"{label}: random state")
    sizes = [(x.numel, x.dtype, x.width) for x in parts]
    several = calls != ONE
    own: list[ref[Node]] = []

    def apply(g: Tensor) -> list[Tensor]:
        node = own[0]() if own else None
        if several and node is not None:
            node.saved = []  # piece by piece: results go as gradients come
        return [
            t.new(*size, f"gradient: {label} {name}", "temporaries") for size, name in zip(sizes, "qkv", strict=True)
        ]

    kept: dict[str, Tensor | None] = {"query": q, "key": k, "value": v, "output": out}
    if flash:
        saved = derivatives.FLASH.kept(**kept, logsumexp=logsumexp, rng_state=state)
    else:
        saved = derivatives.EFFICIENT.kept(**kept, log_sumexp=logsumexp, philox_seed=state)

    def costs() -> Costs:
        moved = bytes_of(q) + bytes_of(k) + bytes_of(v) + bytes_of(out)
        return attention("flash" if flash else "efficient_float32", pieces.pairs * (4 * _wide(q)), moved)

    t.record(label, [out], [q, k, v], saved, apply, costs)
    if out.node is not None:
        own.append(ref(out.node))
    return out

"""Pointwise operators of one tensor: what every other module of operators is built from."""

from __future__ import annotations

from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import Size
from loralens.core.tape.tape import Tape


def like(t: Tape, numel: Size, dtype: str, width: int | Size, label: str) -> Tensor:
    """A temporary of backward; in the head and the loss it counts as part of the logits."""
    return t.new(numel, dtype, width, label, "logits" if t.section == "logits" else "temporaries")


def elementwise(
    t: Tape, x: Tensor, label: str, *, saves_input: bool = False, saves_output: bool = False, dtype: str | None = None
) -> Tensor:
    """A pointwise function of one tensor; its gradient has the input's size."""
    if saves_input:
        t.saving([x], [x])
    out = t.new(x.numel, dtype or x.dtype, x.width, label)
    numel, source, width = x.numel, x.dtype, x.width
    saved = [x] if saves_input else [out] if saves_output else []
    t.record(label, [out], [x], saved, lambda g: like(t, numel, source, width, f"gradient: {label}"))
    return out


def cast(t: Tape, x: Tensor, dtype: str, label: str) -> Tensor:
    """`x.to(dtype)`: a copy, or x itself when the dtype is right already."""
    return x if x.dtype == dtype else elementwise(t, x, label, dtype=dtype)

"""Operators of chunked scans: padding, masks, running sums, and products that einsum makes of permuted tensors.

Source: PyTorch v2.13, tools/autograd/derivatives.yaml, FunctionsManual.cpp (`cumsum_backward`), aten/src/ATen/native/Linear.cpp
(`sumproduct_pair`); seen in traces of models/{mamba2,granitemoehybrid}.
"""

from __future__ import annotations

from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.rows import like
from loralens.core.tape.size import ONE, Size
from loralens.core.tape.tape import Tape


def pad(t: Tape, x: Tensor, numel: Size, label: str) -> Tensor:
    """x with zeros behind it, a copy even where none are added."""
    return derivatives.padded(t, x, label, numel=numel)


def masked_fill(t: Tape, x: Tensor, side: int, label: str) -> Tensor:
    """x, with a number where a square mask of `side` rows holds; the mask is made beside it, out of two others."""
    mask = t.new(ONE * (side * side), "bool", side, f"{label}: mask")
    out = t.new(x.numel, x.dtype, x.width, label)
    numel, dtype, width = x.numel, x.dtype, x.width
    saved = derivatives.MASKED_FILL.kept(self=x, mask=mask)
    t.record(label, [out], [x], saved, lambda g: like(t, numel, dtype, width, f"gradient: {label}"))
    return out


def running_sum(t: Tape, x: Tensor, label: str) -> Tensor:
    """`cumsum`, in float32 under autocast; its backward is one too, between two reversals."""
    out = t.new(x.numel, "float32" if t.autocast else x.dtype, x.width, label)
    numel, dtype, width = x.numel, x.dtype, x.width

    def apply(g: Tensor) -> Tensor:
        reversed_, summed, result = (like(t, numel, dtype, width, f"gradient: {label}") for _ in range(3))
        t.end(reversed_, summed)
        return result

    t.record(label, [out], [x], derivatives.CUMSUM.kept(self=x), apply)
    return out


def contract(
    t: Tape, a: Tensor, b: Tensor, numel: Size, width: int, label: str, *, copies: tuple[bool, bool] = (True, True)
) -> Tensor:
    """`einsum` of two tensors as one batched product; `copies`: which has to be laid out anew for it."""
    if t.autocast is not None:
        a = ops.cast(t, a, t.autocast, f"{label}: input cast by autocast")
        b = ops.cast(t, b, t.autocast, f"{label}: input cast by autocast")
    first = ops.copy(t, a, f"{label}: input laid out") if copies[0] else a
    second = ops.copy(t, b, f"{label}: input laid out") if copies[1] else b
    outside, t.autocast = t.autocast, None
    out = ops.matmul(t, first, second, numel, width, label)
    t.autocast = outside
    return out

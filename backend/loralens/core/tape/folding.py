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
    t: Tape,
    a: Tensor,
    b: Tensor,
    numel: Size,
    width: int,
    label: str,
    *,
    flops: Size,
    copies: tuple[bool, bool] = (True, True),
) -> Tensor:
    """`einsum` of two tensors as one batched product of so many operations; `copies`: which has to be laid out anew for it."""
    if t.autocast is not None:
        a = ops.cast(t, a, t.autocast, f"{label}: input cast by autocast")
        b = ops.cast(t, b, t.autocast, f"{label}: input cast by autocast")
    first = ops.copy(t, a, f"{label}: input laid out") if copies[0] else a
    second = ops.copy(t, b, f"{label}: input laid out") if copies[1] else b
    outside, t.autocast = t.autocast, None
    out = ops.matmul(t, first, second, numel, width, label, flops=flops)
    t.autocast = outside
    return out


def summed(t: Tape, x: Tensor, label: str) -> Tensor:
    """Sum over the last dimension, which is kept; its gradient is expanded, a view."""
    out = t.new(ops.divide(x.numel, x.width), x.dtype, 1, label)
    numel, width = x.numel, x.width

    def apply(g: Tensor) -> Tensor:
        return Tensor(g.storage, numel, g.dtype, width).as_view()

    t.record(label, [out], [x], [], apply)
    return out


def masked(t: Tape, x: Tensor, mask: Tensor, label: str) -> Tensor:
    """x, with a number where a mask that is there already holds."""
    out = t.new(x.numel, x.dtype, x.width, label)
    numel, dtype, width = x.numel, x.dtype, x.width
    saved = derivatives.MASKED_FILL.kept(self=x, mask=mask)
    t.record(label, [out], [x], saved, lambda g: like(t, numel, dtype, width, f"gradient: {label}"))
    return out


def solve_triangular(t: Tape, a: Tensor, b: Tensor, label: str) -> Tensor:
    """`torch.linalg.solve_triangular(a, b)`. Shapes: a (rows, n), b and the result (rows, width).

    Source: torch/csrc/autograd/FunctionsManual.cpp, `linalg_solve_triangular_backward`; what cuBLAS takes beside is unknown.
    """
    out = t.new(b.numel, b.dtype, b.width, label)
    sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (a, b)]
    saved = derivatives.SOLVE_TRIANGULAR.kept(self=a, result=out, B=b)

    def apply(g: Tensor) -> list[Tensor | None]:
        solved = like(t, *sizes[1][:3], f"gradient: {label}, right side")
        if not sizes[0][3]:
            return [None, solved]
        product, negated = (like(t, *sizes[0][:3], f"gradient: {label}, {name}") for name in ("product", "negated"))
        t.end(product)
        lower = like(t, *sizes[0][:3], f"gradient: {label}, triangle")
        t.end(negated)
        return [lower, solved if sizes[1][3] else None]

    t.record(label, [out], [a, b], saved, apply)
    return out


def assign(t: Tape, base: Tensor, value: Tensor, label: str) -> Tensor:
    """`base[..., i] = value`, a slice of base's own storage; backward copies the whole gradient and the slice.

    Source: torch/csrc/autograd/functions/tensor.cpp, `CopySlices` around `CopyBackwards`, torch 2.13.
    """
    out = Tensor(base.storage, base.numel, base.dtype, base.width)
    whole, given = base.node is not None, (value.numel, value.dtype, value.width)
    dtype, wanted = base.dtype, value.node is not None

    def apply(g: Tensor) -> list[Tensor | None]:
        copied = like(t, g.numel, dtype, g.width, f"gradient: {label}, copied")
        part = like(t, given[0], dtype, given[2], f"gradient: {label}, the slice")
        zeros = like(t, given[0], dtype, given[2], f"gradient: {label}, zeros") if whole else None
        if wanted and given[1] != dtype:
            part = t.replace(part, like(t, *given, f"gradient: {label}, cast"))
        t.end(zeros)
        return [copied if whole else None, part if wanted else None]

    t.record(label, [out], [base, value], [], apply)
    return out

"""What each operator allocates, saves for backward and makes there: one rule per op.

Source of the rules: PyTorch v2.13, tools/autograd/derivatives.yaml (what each formula refers to is what is saved) and
aten/src/ATen/native; checked operator by operator against traces of the real models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from loralens.core.question.precision import promote
from loralens.core.tape import derivatives
from loralens.core.tape.autocast import cast_leaf, cast_weight
from loralens.core.tape.cost import NOTHING, Costs, is_narrow
from loralens.core.tape.derivatives import cast as cast
from loralens.core.tape.derivatives import clamp as clamp
from loralens.core.tape.derivatives import cut as cut
from loralens.core.tape.derivatives import exp as exp
from loralens.core.tape.derivatives import gelu as gelu
from loralens.core.tape.derivatives import log_softmax as log_softmax
from loralens.core.tape.derivatives import relu as relu
from loralens.core.tape.derivatives import rsqrt as rsqrt
from loralens.core.tape.derivatives import scale as scale
from loralens.core.tape.derivatives import shift as shift
from loralens.core.tape.derivatives import sigmoid as sigmoid
from loralens.core.tape.derivatives import silu as silu
from loralens.core.tape.derivatives import tanh as tanh
from loralens.core.tape.derivatives import total as total
from loralens.core.tape.graph import Tensor
from loralens.core.tape.rows import like
from loralens.core.tape.size import ONE, Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.work import product

if TYPE_CHECKING:
    from loralens.core.tape.parameter import Parameter


def power(t: Tape, x: Tensor, label: str) -> Tensor:
    """`x ** n`: float32 under autocast; backward makes `x**(n-1)`, its multiple and their product.

    Source: torch/csrc/autograd/FunctionsManual.cpp, `pow_backward`; aten/src/ATen/autocast_mode.h (float32 list).
    """
    if t.autocast is not None:
        x = cast(t, x, "float32", f"{label}: cast by autocast")
    saved = derivatives.POWER.kept(self=x)
    t.saving([x], saved)
    out = t.new(x.numel, x.dtype, x.width, f"{label}: power")
    numel, dtype, width = x.numel, x.dtype, x.width

    def apply(g: Tensor) -> Tensor:
        power, multiple, product = (like(t, numel, dtype, width, f"gradient: {label}: power") for _ in range(3))
        t.end(multiple, power)
        return product

    t.record(label, [out], [x], saved, apply)
    return out


def mul(t: Tape, a: Tensor, b: Tensor, label: str, *, numel: Size | None = None) -> Tensor:
    """Product; each factor is kept if the other one needs a gradient. `b` may be broadcast over `a`, both over `numel`."""
    dtype = promote(a.dtype, b.dtype)
    saved = derivatives.MUL.kept(self=a, other=b)
    t.saving([a, b], saved)
    out = t.new(numel or a.numel, dtype, a.width, label)
    sizes = ((a.numel, a.dtype, a.width, a.node is not None), (b.numel, b.dtype, b.width, b.node is not None))

    def apply(g: Tensor) -> Callable[[], list[Tensor | None]]:
        products = [like(t, g.numel, dtype, g.width, f"gradient: {label}") if wanted else None for *_, wanted in sizes]

        def finish() -> list[Tensor | None]:
            """What the engine does to gradients once the saved tensors are gone: sum over broadcast dimensions, cast."""
            for index, (numel, own_dtype, width, _) in enumerate(sizes):
                product = products[index]
                if product is not None and numel != product.numel:
                    product = t.replace(product, like(t, numel, dtype, width, f"gradient: {label}, summed"))
                if product is not None and own_dtype != dtype:
                    product = t.replace(product, like(t, numel, own_dtype, width, f"gradient: {label}, cast"))
                products[index] = product
            return products

        return finish

    t.record(label, [out], [a, b], saved, apply)
    return out


def add(t: Tape, a: Tensor, b: Tensor, label: str) -> Tensor:
    """Sum of tensors of one size; saves nothing, and both gradients are the incoming one."""
    dtype = promote(a.dtype, b.dtype)
    out = t.new(a.numel, dtype, a.width, label)
    parts = ((a.dtype, a.node is not None, a.numel), (b.dtype, b.node is not None, b.numel))

    def apply(g: Tensor) -> list[Tensor | None]:
        return [
            None
            if not wanted
            else g.view()
            if own == g.dtype and numel == g.numel
            else like(t, numel, own, g.width, f"gradient: {label}, cast")
            for own, wanted, numel in parts
        ]

    t.record(label, [out], [a, b], [], apply)
    return out


def linear(
    t: Tape,
    x: Tensor,
    parameter: Parameter | None,
    label: str,
    bias: Parameter | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """`x @ weight.T (+ bias)`: keeps x if the weight trains, and a copied weight if x needs a gradient.

    Shapes: x (rows, in), weight (out, in), result (rows, out). Under autocast both are cast first.
    """
    w = t.parameter(parameter) if weight is None and parameter is not None else weight
    assert w is not None
    b = None if bias is None else t.parameter(bias)
    given = x  # the calling frames hold the uncast input until the product is made
    if t.autocast is not None:  # arguments are cast from the last to the first, as the compiler evaluates them
        b = None if b is None else cast_weight(t, b, bias, t.autocast)
        w = cast_weight(t, w, parameter, t.autocast)
        outside, t.section = t.section, "activations"  # the head's input is no logit
        x = cast_leaf(t, given, t.autocast, f"{label}: input cast by autocast")
        t.section = outside
    unlaid = x  # as long as the product is made
    if t.strided and x.width == t.strided and w.node is not None:
        x = copy(t, unlaid, f"{label}: input by place")
    saved = derivatives.ADDMM.kept(mat1=x, mat2=w)
    t.saving([x, w, b], saved)
    out_width = _plain(divide(w.numel, x.width))
    out, made = t.result(_times_rows(x, out_width), x.dtype, out_width, label, alternates=b is None)
    x_size, w_size = (x.numel, x.dtype, x.width), (w.numel, w.dtype, w.width)
    b_size = None if b is None else (b.numel, b.dtype, b.width)
    wants = (x.node is not None, w.node is not None, b is not None and b.node is not None)
    # a leaf's first gradient becomes its .grad as it is
    leaf = weight is None and parameter is not None and w.dtype == parameter.dtype and not parameter.gradient_kept
    own_grad = "gradients" if leaf else "temporaries"

    def apply(g: Tensor) -> list[Tensor | None]:
        grad_b = t.new(*b_size, f"gradient: {label} bias", "temporaries") if wants[2] and b_size else None
        # both leave the product as views: the input's reshaped to the batch, the weight's transposed
        grad_x = t.new(*x_size, f"gradient: {label} input", "temporaries").as_view() if wants[0] else None
        grad_w = t.new(*w_size, f"gradient: {label} weight", own_grad).as_view() if wants[1] else None
        return [grad_x, grad_w, grad_b]

    def costs() -> Costs:
        flops = multiplied(out.numel, x.width) * 2
        return product(out, x, w, flops, wants[:2], narrow=is_narrow(x.width, out.width))

    t.record(label, [out], [x, w, b], saved, apply, costs if made else NOTHING)
    return out


def _times_rows(x: Tensor, width: int | Size) -> Size:
    """Elements of a result with as many rows as x; a part of a batch has no whole number of rows for each token."""
    if isinstance(width, int) and isinstance(x.width, int):
        return x.numel.scaled(width, x.width)
    return divide(x.numel, x.width).times(width if isinstance(width, Size) else ONE * width)


def divide(numel: Size, width: int | Size) -> Size:
    """Rows of a tensor: its elements divided by its last dimension."""
    if isinstance(width, int):
        return numel // width
    from loralens.core.tape.size import MONOMIALS, RANK, ZERO

    if width != RANK:
        constant = width[0]
        return numel // constant
    result = list(ZERO)
    for index, coefficient in enumerate(numel):
        if coefficient:
            batch, sequence, rank = MONOMIALS[index]
            result[MONOMIALS.index((batch, sequence, rank - 1))] = coefficient
    return Size(result)


def multiplied(numel: Size, width: int | Size) -> Size:
    """So many elements times a dimension."""
    return numel * width if isinstance(width, int) else numel.times(width)


def _plain(width: Size) -> int | Size:
    return width if width.plain is None else width.plain


def matmul(
    t: Tape, a: Tensor, b: Tensor, numel: Size, width: int | Size, label: str, *, flops: Size | None = None
) -> Tensor:
    """Batched product of two activations; each is kept if the other needs a gradient.

    `flops`: its operations; None: over the last dimension of `a`, as it is given here.
    """
    if t.autocast is not None:
        a = cast(t, a, t.autocast, f"{label}: input cast by autocast")
        b = cast(t, b, t.autocast, f"{label}: input cast by autocast")
    saved = derivatives.BMM.kept(self=a, mat2=b)
    t.saving([a, b], saved)
    out, made = t.result(numel, a.dtype, width, label)
    sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (a, b)]

    def apply(g: Tensor) -> list[Tensor | None]:
        return [like(t, n, d, w, f"gradient: {label}") if wanted else None for n, d, w, wanted in sizes]

    def costs() -> Costs:
        done = multiplied(numel, a.width) * 2 if flops is None else flops
        return product(out, a, b, done, (sizes[0][3], sizes[1][3]), weight=False)

    t.record(label, [out], [a, b], saved, apply, costs if made else NOTHING)
    return out


def mean(t: Tape, x: Tensor, label: str) -> Tensor:
    """Mean over the last dimension; its gradient is expanded (a view) and divided (a tensor of the input's size)."""
    return derivatives.mean_of(t, x, label, numel=divide(x.numel, x.width), width=1)


def sub(t: Tape, a: Tensor, b: Tensor, label: str) -> Tensor:
    """Difference; the second's gradient is negated, and summed where b is broadcast over a."""
    own, given = a.dtype, promote(a.dtype, b.dtype)
    out = t.new(a.numel, given, a.width, label)
    numel, dtype, width = b.numel, b.dtype, b.width
    wanted, second = a.node is not None, b.node is not None

    def apply(g: Tensor) -> list[Tensor | None]:
        first = None
        if wanted:
            first = g.view() if own == given else like(t, g.numel, own, g.width, f"gradient: {label}, cast")
        if not second:
            return [first, None]
        negated = like(t, g.numel, g.dtype, g.width, f"gradient: {label}, negated")
        if numel != g.numel:
            return [first, like(t, numel, dtype, width, f"gradient: {label}, summed")]
        return [first, negated if dtype == given else like(t, numel, dtype, width, f"gradient: {label}, negated, cast")]

    t.record(label, [out], [a, b], [], apply)
    return out


def indexed(t: Tape, x: Tensor, index: Tensor | None, numel: Size, width: int, label: str) -> Tensor:
    """Rows by number (`x[index]`), a copy; backward adds them up into a zeroed tensor of x's size."""
    saved = derivatives.INDEX.kept(self=x, indices=index)
    t.saving([x], saved)
    out = t.new(numel, x.dtype, width, label)
    source, dtype, own = x.numel, x.dtype, x.width
    t.record(label, [out], [x], saved, lambda g: like(t, source, dtype, own, f"gradient: {label}"))
    return out


def gather(t: Tape, x: Tensor, width: int, label: str) -> Tensor:
    """Indexing of the last dimension with a list (`x[..., [-1]]`), whose few numbers are not booked."""
    return indexed(t, x, None, divide(x.numel, x.width) * width, width, label)


def add_in_place(t: Tape, a: Tensor, b: Tensor) -> Tensor:
    """`a += b`: a's own storage."""
    out = Tensor(a.storage, a.numel, a.dtype, a.width)
    t.record("add in place", [out], [a, b], [], lambda g: [g.view(), g.view()])
    return out


def copy(t: Tape, x: Tensor, label: str, numel: Size | None = None, width: int | Size | None = None) -> Tensor:
    """A contiguous or repeated copy; the gradient is made (and summed, when repeated) in the source's size."""
    if numel is None or numel == x.numel:
        return derivatives.clone(t, x, label, width=width)
    return derivatives.repeat(t, x, label, numel=numel, width=width)


def expand(t: Tape, x: Tensor, label: str, times: int) -> Tensor:
    """x spread `times` over without a copy; its gradient is summed."""
    return derivatives.expanded(t, x, label, numel=x.numel * times, width=x.width * times)


def dropout(t: Tape, x: Tensor, probability: float, label: str) -> Tensor:
    """Dropout in training mode: keeps a mask of one byte per element; the identity when the probability is 0."""
    if probability == 0:
        return x
    out = t.new(x.numel, x.dtype, x.width, label)
    mask = t.new(x.numel, "bool", x.width, f"{label} mask")
    numel, dtype, width = x.numel, x.dtype, x.width
    saved = derivatives.DROPOUT.kept(input=x, result1=mask)
    t.record(label, [out], [x], saved, lambda g: like(t, numel, dtype, width, f"gradient: {label}"))
    return out


def softmax(t: Tape, x: Tensor, dtype: str | None, label: str) -> Tensor:
    """Softmax computed (and kept) in `dtype`; float16 is converted inside the kernel, bfloat16 before it.

    Source: aten/src/ATen/native/SoftMax.cpp, `softmax(input, dim, dtype)`.
    """
    if dtype is not None and x.dtype != "float16":
        x = cast(t, x, dtype, f"{label}: input")
    return derivatives.softmax_of(t, x, label, dtype=dtype)


def cat(t: Tape, parts: Sequence[Tensor], width: int | Size, label: str) -> Tensor:
    """Concatenation: a copy; gradients are slices of the incoming one (views)."""
    numel = parts[0].numel
    for part in parts[1:]:
        numel = numel + part.numel
    out = t.new(numel, parts[0].dtype, width, label)
    sizes = [(part.numel, part.width) for part in parts]

    def apply(g: Tensor) -> list[Tensor]:
        return [Tensor(g.storage, numel, g.dtype, width).as_view() for numel, width in sizes]

    t.record(label, [out], list(parts), [], apply)
    return out


def broadcast(t: Tape, x: Tensor, numel: Size, label: str, *, summed: bool) -> Tensor:
    """Repeat without a copy; the gradient is summed over the repeats, or passed on where there is one only."""
    out = Tensor(x.storage, numel, x.dtype, x.width)
    source, dtype, width = x.numel, x.dtype, x.width

    def apply(g: Tensor) -> Tensor:
        return like(t, source, dtype, width, f"gradient: {label}") if summed else g.view()

    t.record(label, [out], [x], [], apply)
    return out


def spread_cat(t: Tape, a: Tensor, b: Tensor, numel: Size, width: int, label: str) -> Tensor:
    """Concatenation where `b` is repeated for every head of `a`; b's gradient is summed over them."""
    out = t.new(numel, a.dtype, width, label)
    sizes = [(x.numel, x.dtype, x.width) for x in (a, b)]
    t.record(label, [out], [a, b], [], lambda g: [like(t, *size, f"gradient: {label}") for size in sizes])
    return out


def split(t: Tape, x: Tensor, widths: Sequence[int], label: str) -> list[Tensor]:
    """Slices along the last dimension: views; backward fills one buffer per slice and adds them up.

    Source: `SplitBackward` is one node and concatenates the gradients, `SliceBackward` one per slice; this is split.
    """
    assert isinstance(x.width, int)
    outs = [Tensor(x.storage, x.numel // x.width * width, x.dtype, width) for width in widths]
    numel, dtype, width = x.numel, x.dtype, x.width
    t.record(label, outs, [x], [], lambda *g: like(t, numel, dtype, width, f"gradient: {label}"))
    return outs


def slice_last(t: Tape, x: Tensor, width: int, label: str) -> Tensor:
    """`x[..., a:a + width]`: a view; its backward fills a zeroed buffer of x's size. The whole of x is x itself."""
    assert isinstance(x.width, int)
    if width == x.width:
        return x.view()
    return cut(t, x, label, numel=x.numel // x.width * width, width=width)

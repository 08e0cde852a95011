"""Activation functions by the name a config gives them.

Source: transformers 5.23 activations.py (`ACT2FN`); what each operator keeps: `derivatives`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import derivatives, ops

if TYPE_CHECKING:
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.rows import Plain
    from loralens.core.tape.tape import Tape

# one operator
_PLAIN: Final[dict[str, Plain]] = {
    "silu": derivatives.silu,
    "swish": derivatives.silu,
    "gelu": derivatives.gelu,
    "gelu_pytorch_tanh": derivatives.gelu,
    "mish": derivatives.mish,
    "hardswish": derivatives.hardswish,
    "leaky_relu": derivatives.leaky_relu,
    "relu": derivatives.relu,
    "sigmoid": derivatives.sigmoid,
    "tanh": derivatives.tanh,
}


def activation(t: Tape, x: Tensor, name: str, label: str) -> Tensor:
    """`ACT2FN[name](x)`. Shapes: any to the same."""
    return (_PLAIN.get(name) or _COMPOSED[name])(t, x, label)


def known(name: str, field: str) -> str:
    """The name itself; raises `UnsupportedArchitecture` for a function that is not modelled."""
    if name not in _PLAIN and name not in _COMPOSED:
        raise UnsupportedArchitecture(
            f"activation function {name[:60]!r} is not modelled",
            field=field,
            hint=f"modelled are: {', '.join(sorted(_PLAIN.keys() | _COMPOSED.keys()))}",
        )
    return name


def _gelu_new(t: Tape, x: Tensor, label: str) -> Tensor:
    """`0.5 * x * (1 + tanh(c * (x + 0.044715 * x**3)))`, one operator after the other."""
    half = ops.scale(t, x, f"{label}: x/2")
    tanh = ops.tanh(
        t,
        ops.scale(
            t,
            ops.add(t, x, ops.scale(t, ops.power(t, x, label), f"{label}: scaled cube"), f"{label}: x + cube"),
            f"{label}: scaled",
        ),
        f"{label}: tanh",
    )
    shifted = ops.shift(t, tanh, f"{label}: 1 + tanh")
    t.end(tanh)
    return ops.mul(t, half, shifted, label)


def _gelu_fast(t: Tape, x: Tensor, label: str) -> Tensor:
    """`0.5 * x * (1 + tanh(x * c * (1 + 0.044715 * x * x)))`, one operator after the other."""
    half = ops.scale(t, x, f"{label}: x/2")
    scaled = ops.scale(t, x, f"{label}: scaled")
    square = ops.mul(t, ops.scale(t, x, f"{label}: multiple"), x, f"{label}: scaled square")
    tanh = ops.tanh(
        t, ops.mul(t, scaled, ops.shift(t, square, f"{label}: 1 + square"), f"{label}: inner"), f"{label}: tanh"
    )
    shifted = ops.shift(t, tanh, f"{label}: 1 + tanh")
    t.end(tanh)
    return ops.mul(t, half, shifted, label)


def _quick_gelu(t: Tape, x: Tensor, label: str) -> Tensor:
    """`x * sigmoid(1.702 * x)`."""
    return ops.mul(t, x, ops.sigmoid(t, ops.scale(t, x, f"{label}: scaled"), f"{label}: sigmoid"), label)


def _relu_squared(t: Tape, x: Tensor, label: str) -> Tensor:
    """`relu(x)**2`."""
    return ops.power(t, ops.relu(t, x, f"{label}: relu"), label)


_COMPOSED: Final[dict[str, Callable[[Tape, Tensor, str], Tensor]]] = {
    "gelu_new": _gelu_new,
    "gelu_accurate": _gelu_new,
    "gelu_fast": _gelu_fast,
    "quick_gelu": _quick_gelu,
    "relu2": _relu_squared,
}

"""Activation functions by the name a config gives them.

Source: transformers 5.23 activations.py (`ACT2FN`); what each operator saves: PyTorch v2.13 derivatives.yaml.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops

if TYPE_CHECKING:
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape

# one kernel that keeps its input / its output
KEEPS_INPUT: Final = {"silu", "swish", "gelu", "gelu_pytorch_tanh", "mish", "hardswish", "leaky_relu"}
KEEPS_OUTPUT: Final = {"relu", "sigmoid", "tanh"}


def activation(t: Tape, x: Tensor, name: str, label: str) -> Tensor:
    """`ACT2FN[name](x)`. Shapes: any to the same."""
    if name in KEEPS_INPUT:
        return ops.elementwise(t, x, label, saves_input=True)
    if name in KEEPS_OUTPUT:
        return ops.elementwise(t, x, label, saves_output=True)
    return _COMPOSED[name](t, x, label)


def known(name: str, field: str) -> str:
    """The name itself; raises `UnsupportedArchitecture` for a function that is not modelled."""
    if name not in KEEPS_INPUT and name not in KEEPS_OUTPUT and name not in _COMPOSED:
        raise UnsupportedArchitecture(
            f"activation function {name[:60]!r} is not modelled",
            field=field,
            hint=f"modelled are: {', '.join(sorted(KEEPS_INPUT | KEEPS_OUTPUT | set(_COMPOSED)))}",
        )
    return name


def _gelu_new(t: Tape, x: Tensor, label: str) -> Tensor:
    """`0.5 * x * (1 + tanh(c * (x + 0.044715 * x**3)))`, one operator after the other."""
    half = ops.scale(t, x, f"{label}: x/2")
    tanh = ops.elementwise(
        t,
        ops.scale(
            t,
            ops.add(t, x, ops.scale(t, ops.power(t, x, label), f"{label}: scaled cube"), f"{label}: x + cube"),
            f"{label}: scaled",
        ),
        f"{label}: tanh",
        saves_output=True,
    )
    shifted = ops.shift(t, tanh, f"{label}: 1 + tanh")
    t.end(tanh)
    return ops.mul(t, half, shifted, label)


def _quick_gelu(t: Tape, x: Tensor, label: str) -> Tensor:
    """`x * sigmoid(1.702 * x)`."""
    return ops.mul(
        t, x, ops.elementwise(t, ops.scale(t, x, f"{label}: scaled"), f"{label}: sigmoid", saves_output=True), label
    )


def _relu_squared(t: Tape, x: Tensor, label: str) -> Tensor:
    """`relu(x)**2`."""
    return ops.power(t, ops.elementwise(t, x, f"{label}: relu", saves_output=True), label)


_COMPOSED: Final[dict[str, Callable[[Tape, Tensor, str], Tensor]]] = {
    "gelu_new": _gelu_new,
    "gelu_accurate": _gelu_new,
    "quick_gelu": _quick_gelu,
    "relu2": _relu_squared,
}

"""Convolutions, which turn pictures and sound into vectors.

Source: torch 2.13 tools/autograd/derivatives.yaml, `convolution`: the input and the weight are kept; one backward function
makes all three gradients.
"""

from __future__ import annotations

from loralens.core.architecture.module import Module
from loralens.core.question.recipe import Recipe
from loralens.core.tape import derivatives, ops
from loralens.core.tape.autocast import cast_weight
from loralens.core.tape.cost import Costs
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.work import product


def given_dtype(recipe: Recipe) -> str:
    """Pictures and sound come as a collator makes them under autocast; without it they must have the weights' dtype."""
    return "float32" if recipe.autocast else recipe.weights_dtype


class Convolution(Module):
    """A convolution's weight and bias. Shapes: weight (out, in, *kernel)."""

    multiplies = True

    def __init__(self, inputs: int, outputs: int, *kernel: int, name: str = "convolution", bias: bool = True) -> None:
        self.weight = Parameter((outputs, inputs, *kernel))
        self.bias = Parameter((outputs,)) if bias else None
        self._outputs, self._name = outputs, name

    def forward(self, t: Tape, x: Tensor, places: Size) -> Tensor:
        """Shapes: any to (places, outputs); `places` counts the output's positions over the whole batch."""
        weight, bias = t.parameter(self.weight), None if self.bias is None else t.parameter(self.bias)
        if t.autocast is not None:
            bias = None if bias is None else cast_weight(t, bias, self.bias, t.autocast)
            weight = cast_weight(t, weight, self.weight, t.autocast)
            x = ops.cast(t, x, t.autocast, f"{self._name}: input cast by autocast")
        out = t.new(places * self._outputs, x.dtype, self._outputs, self._name)
        sizes = [
            (p.numel, p.dtype, p.width) if p is not None and p.node is not None else None for p in (x, weight, bias)
        ]

        def apply(g: Tensor) -> list[Tensor | None]:
            return [None if size is None else t.new(*size, f"gradient: {self._name}", "temporaries") for size in sizes]

        saved = derivatives.CONVOLUTION.kept(input=x, weight=weight, bias=bias)
        trained = (sizes[0] is not None, sizes[1] is not None)

        def costs() -> Costs:
            return product(out, x, weight, places.times(weight.numel) * 2, trained)

        t.record(self._name, [out], [x, weight, bias], saved, apply, costs)
        return out

"""Gemma 4's layers in towers, whose input and result may be clamped.

Source: transformers 5.23, models/gemma4/modeling_gemma4.py (`Gemma4ClippableLinear`).
"""

from __future__ import annotations

from loralens.core.architecture.module import Linear, Module
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import clamp_by
from loralens.core.tape.tape import Tape


class Clipped(Module):
    """A layer without bias, its input and result clamped where the config says so."""

    wraps = "Gemma4ClippableLinear"

    def __init__(self, inputs: int, outputs: int, clips: bool, name: str) -> None:
        self.linear = Linear(inputs, outputs, name=name)
        self._clips = clips

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows, outputs)."""
        if self._clips:
            x = clamp_by(t, x, f"{self.linear.label}: clamped input")
        x = self.linear(t, x)
        return clamp_by(t, x, f"{self.linear.label}: clamped") if self._clips else x

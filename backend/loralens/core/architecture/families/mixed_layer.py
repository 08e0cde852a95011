"""The layer of decoders whose layers mix positions in one of two ways: attention in some, a recurrence in the others.

Source: transformers 5.23, models/{qwen3_next,jamba,bamba}/modeling_*.py, whose layers differ in names alone.
"""

from __future__ import annotations

from collections.abc import Callable

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.module import Module
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class MixedLayer(Module):
    """A mixer, then an MLP; two norms. A family names the parts as transformers does."""

    mlp_name, mlp_norm_name = "mlp", "post_attention_layernorm"

    def __init__(
        self, s: Shape, mixer_name: str, mixer: Module, mlp: Module, norm: Callable[[int], Module] = RMSNorm
    ) -> None:
        setattr(self, mixer_name, mixer)
        setattr(self, self.mlp_name, mlp)
        self.input_layernorm = norm(s.hidden)
        setattr(self, self.mlp_norm_name, norm(s.hidden))
        self._mixer_name = mixer_name

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = getattr(self, self._mixer_name)(t, hidden, call)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = getattr(self, self.mlp_norm_name)(t, hidden)
        hidden = getattr(self, self.mlp_name)(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")

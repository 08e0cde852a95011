"""Qwen (the first generation): Llama's arithmetic under GPT-2's names, q, k, v in one matrix.

Source: QwenLM/Qwen, modeling_qwen.py (the repository's own code; transformers has no such family): `intermediate_size`
counts w1 and w2 together, c_attn has a bias, nothing else does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames, SelfAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape

UNTRACED: Final = "about: this family's code lives on the Hub, not in transformers; it is walked as that code reads, and no traced step holds it"


class QwenAttention(SelfAttention):
    """Query, key and value are slices of one result."""

    def __init__(self, s: Shape) -> None:
        self.c_attn = Linear(s.hidden, 3 * s.heads * s.head_dim, True, name="attention query, key and value")
        self.c_proj = Linear(s.heads * s.head_dim, s.hidden, name="attention output projection")
        self.s = s
        self.mask = "full"

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three slices of the fused projection."""
        width = self.s.heads * self.s.head_dim
        q, k, v = ops.split(t, self.c_attn(t, x), [width] * 3, "attention: q, k, v")
        return q.view(self.s.head_dim), k.view(self.s.head_dim), v.view(self.s.head_dim)

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """The output projection."""
        return self.c_proj(t, x)


class QwenMLP(Module):
    """`c_proj(w1(x) * silu(w2(x)))`."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        self.w1 = Linear(hidden, intermediate, name="mlp up")
        self.w2 = Linear(hidden, intermediate, name="mlp gate")
        self.c_proj = Linear(intermediate, hidden, name="mlp down")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        up = self.w1(t, x)
        gate = ops.silu(t, self.w2(t, x), "mlp: activated gate")
        return self.c_proj(t, ops.mul(t, up, gate, "mlp: product"))


class QwenLayer(Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, s: Shape) -> None:
        self.ln_1 = RMSNorm(s.hidden)
        self.attn = QwenAttention(s)
        self.ln_2 = RMSNorm(s.hidden)
        self.mlp = QwenMLP(s.hidden, s.intermediate)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.attn(t, self.ln_1(t, hidden), call)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.mlp(t, self.ln_2(t, hidden))
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Qwen(CausalDecoder):
    """The causal language model."""

    default_targets = ("c_attn",)
    upcasts_logits = False

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        s = replace(s, intermediate=s.intermediate // 2)
        names = PartNames("transformer", "wte", "h", "ln_f")
        self.assemble(s, lambda _: QwenLayer(s), (None,) * s.layers, names=names)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What holds its figures."""
        return [*super().assumptions(recipe), UNTRACED]

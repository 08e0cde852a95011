"""CodeGen: GPT-J's block, query, key and value in one matrix of four parts, rotary in float32.

Source: transformers 5.23, models/codegen/modeling_codegen.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.families.gptj import GPTJ, GPTJBlock
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.rotary import cut, paired
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.eager import product
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE
from loralens.core.tape.tape import Tape


class CodeGenAttention(Module):
    """Each layer gathers its own sines and cosines, and keeps them in float32."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.qkv_proj = Linear(s.hidden, 3 * s.hidden, name="attention query, key and value")
        self.out_proj = Linear(s.hidden, s.hidden, name="attention output projection")
        self._s, self._dropout = s, dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s = self._s
        fused = t.local(self.qkv_proj(t, x))
        q, v, k = ops.split(t, fused, [s.hidden] * 3, "attention: q, v, k")
        q, k, v = (ops.copy(t, part, "attention: q, k, v by head").view(s.head_dim) for part in (q, k, v))
        halves = t.local(t.new(SEQUENCE * s.rotated, "float32", s.rotated, "rotary: sines and cosines"))
        k_rot, k_pass = cut(t, k, s.rotated, "attention key")
        q_rot, q_pass = cut(t, q, s.rotated, "attention query")
        k_rot = rotate(t, k_rot, paired(t, (halves, halves)), "attention key")
        q_rot = rotate(t, q_rot, paired(t, (halves, halves)), "attention query")
        k = ops.cat(t, [k_rot, k_pass], s.head_dim, "attention key, whole")
        q = ops.cat(t, [q_rot, q_pass], s.head_dim, "attention query, whole")
        out = product(t, q, k, v, call.masks["full"], s.heads, s.attention_dropout, scaled_last=True)
        return ops.dropout(t, self.out_proj(t, out.view(s.hidden)), self._dropout, "attention: residual dropout")


class CodeGenBlock(GPTJBlock):
    """Parallel attention and MLP."""

    def __init__(self, s: Shape, positions: int, dropout: float) -> None:
        super().__init__(s, positions, dropout)
        self.attn = CodeGenAttention(s, dropout)


class CodeGen(GPTJ):
    """The causal language model."""

    default_targets = ("qkv_proj",)
    block = CodeGenBlock

    def attention_for(self, recipe: Recipe) -> str:
        """There is only an eager implementation."""
        return "eager"

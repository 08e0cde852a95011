"""Phi-1.5 and Phi-2: attention and MLP side by side on one layer norm, bias everywhere, rotary on a part of each head.

Source: transformers 5.23, models/phi/modeling_phi.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm, PlainMLP, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames, SelfAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.rotary import cut
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class PhiAttention(SelfAttention):
    """The turned parts of query and key live until the attention returns."""

    heads_first = True

    def __init__(self, s: Shape, norms: bool) -> None:
        super().__init__(s, bias=True)
        del self.o_proj
        self.dense = Linear(s.heads * s.head_dim, s.hidden, True, name="attention output projection")
        if norms:
            self.q_layernorm = LayerNorm(s.head_dim)
            self.k_layernorm = LayerNorm(s.head_dim)
        self._norms = norms

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, tables = self.s, call.shared["rotary"]
        q, k, v = self.project(t, x)
        if self._norms:
            q = self.q_layernorm(t, q)
            k = self.k_layernorm(t, k)
        q_rot, q_pass = cut(t, q, s.rotated, "attention query")
        k_rot, k_pass = cut(t, k, s.rotated, "attention key")
        q_rot, k_rot = rotate(t, q_rot, tables, "attention query"), rotate(t, k_rot, tables, "attention key")
        q = ops.cat(t, [q_rot, q_pass], s.head_dim, "attention query, whole")
        k = ops.cat(t, [k_rot, k_pass], s.head_dim, "attention key, whole")
        out = self.kernel(call)(t, q, k, v, call.masks["full"])
        return self.dense(t, out.view(s.heads * s.head_dim))


class PhiLayer(Module):
    """Parallel attention and MLP."""

    def __init__(self, s: Shape, norms: bool, dropout: float) -> None:
        self.self_attn = PhiAttention(s, norms)
        self.mlp = PlainMLP(s.hidden, s.intermediate, ("fc1", "fc2"), s.act)
        self.input_layernorm = LayerNorm(s.hidden)
        self._dropout = dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        attended = self.self_attn(t, hidden, call)
        attended = ops.dropout(t, attended, self._dropout, "residual dropout")
        fed = ops.dropout(t, self.mlp(t, hidden), self._dropout, "residual dropout")
        return ops.add(t, ops.add(t, attended, fed, "attention plus mlp"), residual, "residual stream after the layer")


class Phi(CausalDecoder):
    """The causal language model."""

    default_targets = ("q_proj", "v_proj", "fc1", "fc2")

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, act="gelu_new", rotary=0.5)
        norms, dropout = config.flag("qk_layernorm", False), config.number("resid_pdrop", 0.0, 0, 1)
        self.embedding_dropout = config.number("embd_pdrop", 0.0, 0, 1)
        names = PartNames(norm="final_layernorm")
        self.assemble(s, lambda _: PhiLayer(s, norms, dropout), s.windows, norm=LayerNorm, names=names, head_bias=True)

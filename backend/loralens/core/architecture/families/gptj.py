"""GPT-J: parallel attention and MLP on one layer norm, rotary by pairs, scores in float32 and no SDPA.

Source: transformers 5.23, models/gptj/modeling_gptj.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm, PlainMLP, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames, SelfAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.rotary import cut, paired
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.eager import product
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE, SEQUENCE
from loralens.core.tape.tape import Tape


class GPTJAttention(SelfAttention):
    """Each layer gathers its own sines and cosines."""

    def __init__(self, s: Shape, positions: int, dropout: float) -> None:
        super().__init__(s)
        del self.o_proj
        self.out_proj = Linear(s.hidden, s.hidden, name="attention output projection")
        self._positions = positions
        self._dropout = dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s = self.s
        q, k, v = self.project(t, x)
        table = t.new(
            ONE * (self._positions * s.rotated), "float32", s.rotated, "rotary: sines and cosines of all positions"
        )
        index = t.new(SEQUENCE * s.rotated, "int64", s.rotated, "rotary: gathered positions")
        halves = t.new(SEQUENCE * s.rotated, k.dtype, s.rotated, "rotary: sines and cosines")
        k_rot, k_pass = cut(t, k, s.rotated, "attention key")
        q_rot, q_pass = cut(t, q, s.rotated, "attention query")
        k_rot = rotate(t, k_rot, paired(t, (halves, halves)), "attention key")
        q_rot = rotate(t, q_rot, paired(t, (halves, halves)), "attention query")
        k = ops.cat(t, [k_rot, k_pass], s.head_dim, "attention key, whole")
        q = ops.cat(t, [q_rot, q_pass], s.head_dim, "attention query, whole")
        out = product(t, q, k, v, call.masks["full"], s.heads, s.attention_dropout)
        t.end(table, index)
        return ops.dropout(t, self.out_proj(t, out.view(s.hidden)), self._dropout, "attention: residual dropout")


class GPTJBlock(Module):
    """Parallel attention and MLP."""

    def __init__(self, s: Shape, positions: int, dropout: float) -> None:
        self.ln_1 = LayerNorm(s.hidden)
        self.attn: Module = GPTJAttention(s, positions, dropout)
        self.mlp = PlainMLP(s.hidden, s.intermediate, ("fc_in", "fc_out"), s.act, dropout=dropout)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.ln_1(t, hidden)
        attended = self.attn(t, hidden, call)
        fed = self.mlp(t, hidden)
        return ops.add(t, ops.add(t, attended, fed, "attention plus mlp"), residual, "residual stream after the layer")


class GPTJ(CausalDecoder):
    """The causal language model."""

    block = GPTJBlock

    def __init__(self, config: Config) -> None:
        width = config.integer("hidden_size", "n_embd")
        s = Shape.read(config, intermediate=config.integer("n_inner", default=4 * width), act="gelu_new")
        turned = config.integer("rotary_dim", default=64, high=s.head_dim)
        s = s.with_rotated(turned)
        positions = config.integer("max_position_embeddings", "n_positions", default=2048)
        dropout = config.number("resid_pdrop", 0.0, 0, 1)
        self.embedding_dropout = config.number("embd_pdrop", 0.0, 0, 1)
        names = PartNames("transformer", "wte", "h", "ln_f")
        self.assemble(
            s, lambda _: self.block(s, positions, dropout), s.windows, norm=LayerNorm, names=names, head_bias=True
        )
        self.buffer_bytes = s.layers * positions * turned * 4

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """None: the layers make their own."""

    def attention_for(self, recipe: Recipe) -> str:
        """There is an eager and a flash-attention implementation, and no SDPA."""
        return "eager" if recipe.attention == "sdpa" else recipe.attention

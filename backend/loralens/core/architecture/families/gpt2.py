"""GPT-2: learned positions, layer norm, Conv1D weights (held transposed), dropout everywhere.

Source: transformers 5.23, models/gpt2/modeling_gpt2.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import Attention, LayerNorm, PlainMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import lookup
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE
from loralens.core.tape.tape import Tape


class GPT2Attention(Module):
    """Query, key and value in one matrix; eager softmax in the input's dtype."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.c_attn = Linear(s.hidden, 3 * s.hidden, True, name="attention query, key and value", transposed=True)
        self.c_proj = Linear(s.hidden, s.hidden, True, name="attention output projection", transposed=True)
        self._s = s
        self._dropout = dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s = self._s
        q, k, v = ops.split(t, self.c_attn(t, x), [s.hidden] * 3, "attention: q, k, v")
        kernel = Attention(
            s.heads, s.heads, s.head_dim, s.head_dim, call.attention, s.attention_dropout, softmax_dtype=None
        )
        out = kernel(t, q.view(s.head_dim), k.view(s.head_dim), v.view(s.head_dim), call.masks["full"])
        out = self.c_proj(t, out.view(s.hidden))
        return ops.dropout(t, out, self._dropout, "attention: residual dropout")


class GPT2Block(Module):
    """Pre-norm attention and MLP."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.ln_1 = LayerNorm(s.hidden)
        self.attn: Module = GPT2Attention(s, dropout)
        self.ln_2 = LayerNorm(s.hidden)
        self.mlp = PlainMLP(s.hidden, s.intermediate, ("c_fc", "c_proj"), s.act, dropout=dropout, transposed=True)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.ln_1(t, hidden)
        attended = self.attn(t, hidden, call)
        hidden = ops.add(t, attended, residual, "residual stream after attention")
        residual = hidden
        hidden = self.ln_2(t, hidden)
        hidden = self.mlp(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class GPT2(CausalDecoder):
    """The causal language model."""

    default_targets: tuple[str, ...] = ("c_attn",)

    def __init__(self, config: Config) -> None:
        width = config.integer("hidden_size", "n_embd")
        s = Shape.read(
            config,
            tied=True,
            intermediate=config.integer("n_inner", default=4 * width),
            act="gelu_new",
            rotary=0,
            dropout=0.1,
        )
        residual = config.number("resid_pdrop", 0.1, 0, 1)
        self.embedding_dropout = config.number("embd_pdrop", 0.1, 0, 1)
        names = PartNames("transformer", "wte", "h", "ln_f")
        inner = self.assemble(s, lambda _: GPT2Block(s, residual), (None,) * s.layers, norm=LayerNorm, names=names)
        self.learned_positions = config.integer("max_position_embeddings", "n_positions", default=1024)
        inner.wpe = Embedding(self.learned_positions, s.hidden)
        config.refuse("add_cross_attention", "cross attention")

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token plus position embeddings."""
        tokens = lookup(t, self.embedding, call)
        positions = self.inner.wpe(t, SEQUENCE, "position embeddings", call.shared["position ids"])
        call.held.append(positions)
        hidden = ops.add(t, tokens, positions, "embeddings")
        self.masks(t, call)
        return ops.dropout(t, hidden, self.embedding_dropout, "embeddings: dropout")

"""GPTBigCode (SantaCoder, StarCoder): GPT-2's layout with linear layers and a single key and value head.

Source: transformers 5.23, models/gpt_bigcode/modeling_gpt_bigcode.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import Attention, LayerNorm, PlainMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import PartNames
from loralens.core.architecture.families.gpt2 import GPT2, GPT2Block
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.question.versions import LABELS_SHIFTED_SINCE
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class BigCodeAttention(Module):
    """One projection for all query heads and the key and value heads."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.c_attn = Linear(
            s.hidden, s.hidden + 2 * s.kv_heads * s.head_dim, True, name="attention query, key and value"
        )
        self.c_proj = Linear(s.hidden, s.hidden, True, name="attention output projection")
        self._s = s
        self._dropout = dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        fused = self.c_attn(t, x)
        if s.kv_heads == 1:
            q, k, v = ops.split(t, fused, [s.hidden, width, width], "attention: q, k, v")
        else:
            q, k, v = ops.split(t, fused.view(3 * width), [width] * 3, "attention: q, k, v")
        t.end(fused)
        kernel = Attention(s.heads, s.kv_heads, width, width, call.attention, s.attention_dropout)
        out = kernel(t, q.view(width), k, v, call.masks["full"])
        return ops.dropout(t, self.c_proj(t, out.view(s.hidden)), self._dropout, "attention: residual dropout")


class BigCodeBlock(GPT2Block):
    """Pre-norm attention and MLP."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.ln_1 = LayerNorm(s.hidden)
        self.attn = BigCodeAttention(s, dropout)
        self.ln_2 = LayerNorm(s.hidden)
        self.mlp = PlainMLP(s.hidden, s.intermediate, ("c_fc", "c_proj"), s.act, dropout=dropout)


class GPTBigCode(GPT2):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        config.refuse("add_cross_attention", "cross attention")
        width = config.integer("hidden_size", "n_embd")
        single = config.flag("multi_query", True)
        inner = config.integer("n_inner", default=4 * width)
        s = Shape.read(config, tied=True, intermediate=inner, act="gelu_pytorch_tanh", rotary=0, dropout=0.1)
        s = s.with_kv_heads(1 if single else s.heads)
        residual = config.number("resid_pdrop", 0.1, 0, 1)
        self.embedding_dropout = config.number("embd_pdrop", 0.1, 0, 1)
        names = PartNames("transformer", "wte", "h", "ln_f")
        model = self.assemble(s, lambda _: BigCodeBlock(s, residual), s.windows, norm=LayerNorm, names=names)
        self.learned_positions = config.integer("max_position_embeddings", "n_positions", default=1024)
        model.wpe = Embedding(self.learned_positions, s.hidden)
        self.upcasts_logits = config.transformers >= LABELS_SHIFTED_SINCE  # before, the loss ran on 16-bit logits
        # assumption: cast by autocast first, to which its published runs lie nearer (docs/accuracy.md)
        self.casts_shifted = not self.upcasts_logits
        # the causal table is kept as a buffer of one byte per pair of positions
        self.buffer_bytes = self.learned_positions**2

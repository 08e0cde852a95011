"""GPT-Neo: scores in float32 without a scale, every layer with a table of what it may see.

Source: transformers 5.23, models/gpt_neo/modeling_gpt_neo.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm, PlainMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import PartNames
from loralens.core.architecture.families.gpt2 import GPT2, GPT2Block
from loralens.core.architecture.families.mpt import by_head
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.folding import masked
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape


class NeoAttention(Module):
    """Query and key are made float32; what a layer may not see is put in place, then the mask is added."""

    def __init__(self, s: Shape, dropout: float) -> None:
        for name in ("k", "v", "q"):
            setattr(self, f"{name}_proj", Linear(s.hidden, s.hidden, name=f"attention {name}"))
        self.out_proj = Linear(s.hidden, s.hidden, True, name="attention output projection")
        self._s, self._dropout = s, dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        q, k, v = (getattr(self, f"{name}_proj")(t, x).view(width) for name in "qkv")
        out, weights = self._attended(t, q, k, v, call.masks["full"])
        out = ops.copy(t, out, "attention: output", width=s.hidden)
        t.handed.weights = weights
        out = self.out_proj(t, out)
        return ops.dropout(t, out, self._dropout, "attention: residual dropout")

    def _attended(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        s, width = self._s, self._s.head_dim
        q = ops.cast(t, q, "float32", "attention query in float32")
        k = ops.cast(t, k, "float32", "attention key in float32")
        scores = TOKENS_BY_SEQUENCE * s.heads
        flops = scores * (2 * width)
        weights = ops.matmul(
            t, by_head(t, q, "query"), by_head(t, k, "key"), scores, 1, "attention: scores", flops=flops
        )
        weights = masked(t, weights, Tensor(None, weights.numel, "bool", 1), "attention: scores of what is seen")
        if mask is not None:
            weights = ops.add(t, weights, mask, "attention: masked scores")
        weights = ops.softmax(t, weights, "float32" if t.autocast else None, "attention: softmax")
        weights = ops.cast(t, weights, v.dtype, "attention: probabilities")
        weights = ops.dropout(t, weights, s.attention_dropout, "attention: dropout")
        value = by_head(t, v, "value")
        return ops.matmul(t, weights, value, v.numel, width, "attention: output by head", flops=flops), weights


class NeoBlock(GPT2Block):
    """Pre-norm attention and MLP; attention is one module deeper."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.ln_1 = LayerNorm(s.hidden)
        self.attn = Wrapped(NeoAttention(s, dropout))
        self.ln_2 = LayerNorm(s.hidden)
        self.mlp = PlainMLP(s.hidden, s.intermediate, ("c_fc", "c_proj"), s.act, dropout=dropout)


class Wrapped(Module):
    """`attention` under a name of its own."""

    def __init__(self, attention: Module) -> None:
        self.attention = attention

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        out: Tensor = self.attention(t, x, call)
        return out


class GPTNeo(GPT2):
    """The causal language model."""

    default_targets = ("q_proj", "v_proj")

    def __init__(self, config: Config) -> None:
        width = config.integer("hidden_size")
        s = Shape.read(config, tied=True, intermediate=4 * width, act="gelu_new", rotary=0)
        residual = config.number("resid_dropout", 0.0, 0, 1)
        self.embedding_dropout = config.number("embed_dropout", 0.0, 0, 1)
        names = PartNames("transformer", "wte", "h", "ln_f")
        inner = self.assemble(s, lambda _: NeoBlock(s, residual), s.windows, norm=LayerNorm, names=names)
        self.learned_positions = config.integer("max_position_embeddings", default=2048)
        inner.wpe = Embedding(self.learned_positions, s.hidden)
        self.buffer_bytes = s.layers * self.learned_positions**2  # what each layer sees

    def attention_for(self, recipe: Recipe) -> str:
        """There is an eager and a flash-attention implementation, and no SDPA."""
        return "eager"

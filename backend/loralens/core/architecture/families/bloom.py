"""BLOOM: alibi instead of positions, eager attention only, layer norm on the embeddings.

Source: transformers 5.23, models/bloom/modeling_bloom.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import causal_mask, lookup
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, SEQUENCE, TOKENS, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape


class BloomAttention(Module):
    """Query, key and value are copied out of one result; scores start from alibi."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.query_key_value = Linear(s.hidden, 3 * s.hidden, True, name="attention query, key and value")
        self.dense = Linear(s.hidden, s.hidden, True, name="attention output projection")
        self._s, self._dropout = s, dropout

    def forward(self, t: Tape, x: Tensor, residual: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        fused = self.query_key_value(t, x)
        parts = [ops.slice_last(t, fused, s.hidden, "attention: q, k, v").view(width) for _ in range(3)]
        q, k, v = (ops.copy(t, part, "attention: q, k, v by head") for part in parts)
        t.end(*reversed(parts))
        scores = TOKENS_BY_SEQUENCE * s.heads
        weights = ops.matmul(t, q, k, scores, 1, "attention: scores", flops=scores * (2 * width))
        mask = call.masks["full"]
        if mask is not None:
            scored = weights
            weights = ops.add(t, weights, mask, "attention: masked scores")
        weights = ops.cast(
            t, ops.softmax(t, weights, "float32", "attention: softmax in float32"), q.dtype, "attention: probabilities"
        )
        weights = ops.dropout(t, weights, s.attention_dropout, "attention: dropout")
        flops = scores * (2 * width)
        out = ops.matmul(t, weights, v, TOKENS * s.hidden, width, "attention: output by head", flops=flops)
        out = ops.copy(t, out, "attention: output", width=s.hidden)
        out = ops.dropout(t, self.dense(t, out), self._dropout, "residual dropout")
        t.end(scored)
        return ops.add(t, residual, out, "residual stream after attention")


class BloomMLP(Module):
    """Two linear layers around GELU as one autograd function that keeps its input."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.dense_h_to_4h = Linear(s.hidden, 4 * s.hidden, True, name="mlp up")
        self.dense_4h_to_h = Linear(4 * s.hidden, s.hidden, True, name="mlp down")
        self._dropout = dropout

    def forward(self, t: Tape, x: Tensor, residual: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        x = _gelu(t, self.dense_h_to_4h(t, x))
        out = ops.dropout(t, self.dense_4h_to_h(t, x), self._dropout, "residual dropout")
        return ops.add(t, residual, out, "residual stream after the layer")


def _gelu(t: Tape, x: Tensor) -> Tensor:
    """`BloomGelu`: in forward and in backward several temporaries of the input's size live at once."""

    def fresh(label: str) -> Tensor:
        return t.new(x.numel, x.dtype, x.width, label, "temporaries")

    half, inner = fresh("mlp: gelu, x/2"), fresh("mlp: gelu, inner")
    other = fresh("mlp: gelu, inner")
    out = t.new(x.numel, x.dtype, x.width, "mlp: activated")
    t.end(half, inner, other)
    size = (x.numel, x.dtype, x.width)

    def apply(g: Tensor) -> Tensor:
        *parts, gradient = (t.new(*size, "gradient: mlp: activated", "temporaries") for _ in range(5))
        t.end(*reversed(parts))
        return gradient

    t.record("mlp: activated", [out], [x], [x], apply)
    return out


class BloomBlock(Module):
    """Pre-norm attention and MLP; the residual is handed into both."""

    def __init__(self, s: Shape, dropout: float, post: bool) -> None:
        self.input_layernorm = LayerNorm(s.hidden)
        self.self_attention = BloomAttention(s, dropout)
        self.post_attention_layernorm = LayerNorm(s.hidden)
        self.mlp = BloomMLP(s, dropout)
        self._post = post

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        normed = self.input_layernorm(t, hidden)
        attended = self.self_attention(t, normed, normed if self._post else hidden, call)
        normed = self.post_attention_layernorm(t, attended)
        out: Tensor = self.mlp(t, normed, normed if self._post else attended)
        return out


class Bloom(CausalDecoder):
    """The causal language model."""

    caches = False
    default_targets = ("query_key_value",)

    def __init__(self, config: Config) -> None:
        width = config.integer("hidden_size", "n_embed")
        s = Shape.read(config, tied=True, intermediate=4 * width, act="gelu", rotary=0)
        dropout, post = (
            config.number("hidden_dropout", 0.0, 0, 1),
            config.flag("apply_residual_connection_post_layernorm", False),
        )
        names = PartNames("transformer", "word_embeddings", "h", "ln_f")
        inner = self.assemble(s, lambda _: BloomBlock(s, dropout, post), s.windows, norm=LayerNorm, names=names)
        inner.word_embeddings_layernorm = LayerNorm(s.hidden)

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Normed token embeddings, alibi and the mask."""
        tokens = lookup(t, self.embedding, call)
        t.end(call.shared.pop("position ids"))
        hidden: Tensor = self.inner.word_embeddings_layernorm(t, tokens)
        call.shared["alibi"] = t.new((BATCH.times(SEQUENCE)) * self.s.heads, hidden.dtype, 1, "alibi")
        call.masks["full"] = causal_mask(t, call)
        return hidden

    def attention_for(self, recipe: Recipe) -> str:
        """There is only an eager implementation."""
        return "eager"

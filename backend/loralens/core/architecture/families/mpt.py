"""MPT: alibi instead of positions, eager attention only, no biases.

Source: transformers 5.23, models/mpt/modeling_mpt.py.
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
from loralens.core.tape.folding import masked
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import ONE, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape


class MptAttention(Module):
    """Query, key and value are parts of one result; alibi, in float32, raises the scores to it."""

    def __init__(self, s: Shape, clip: bool) -> None:
        self.Wqkv = Linear(s.hidden, 3 * s.hidden, name="attention query, key and value")
        self.out_proj = Linear(s.hidden, s.hidden, name="attention output projection")
        self._s, self._clip = s, clip

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        fused = self.Wqkv(t, x)
        if self._clip:
            fused = ops.clamp(t, fused, "attention: clipped")
        q, k, v = (part.view(width) for part in ops.split(t, fused, [s.hidden] * 3, "attention: q, k, v"))
        scores = TOKENS_BY_SEQUENCE * s.heads
        flops = scores * (2 * width)
        weights = ops.matmul(
            t, by_head(t, q, "query"), by_head(t, k, "key"), scores, 1, "attention: scores", flops=flops
        )
        weights = ops.scale(t, weights, "attention: scaled scores")
        weights = ops.add(t, weights, call.shared["alibi"], "attention: biased scores")
        mask = call.masks["full"]
        assert mask is not None
        scored = masked(t, weights, mask, "attention: masked scores")
        t.replace(weights, scored)
        probabilities = ops.softmax(t, scored, "float32", "attention: softmax in float32")
        probabilities = ops.cast(t, probabilities, v.dtype, "attention: probabilities")
        probabilities = ops.dropout(t, probabilities, s.attention_dropout, "attention: dropout")
        out = ops.matmul(
            t, probabilities, by_head(t, v, "value"), v.numel, width, "attention: output by head", flops=flops
        )
        out = ops.copy(t, out, "attention: output", width=s.hidden)
        t.handed.weights = probabilities
        return self.out_proj(t, out)


def by_head(t: Tape, x: Tensor, name: str) -> Tensor:
    """As a batched product needs what lies by token: a copy, if there are more samples than one."""
    if t.autocast is not None:
        x = ops.cast(t, x, t.autocast, f"attention: {name} cast by autocast")
    return ops.copy(t, x, f"attention: {name} by head") if t.validity.exceeds("micro_batch_size", 1) else x


class MptMLP(Module):
    """The residual is handed in."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.up_proj = Linear(s.hidden, 4 * s.hidden, name="mlp up")
        self.down_proj = Linear(4 * s.hidden, s.hidden, name="mlp down")
        self._dropout = dropout

    def forward(self, t: Tape, x: Tensor, residual: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        x = ops.gelu(t, self.up_proj(t, x), "mlp: activated")
        out = ops.dropout(t, self.down_proj(t, x), self._dropout, "residual dropout")
        return ops.add(t, out, residual, "residual stream after the layer")


class MptBlock(Module):
    """Pre-norm attention and MLP, norms without bias."""

    def __init__(self, s: Shape, clip: bool) -> None:
        self.norm_1 = LayerNorm(s.hidden, bias=False)
        self.attn = MptAttention(s, clip)
        self.norm_2 = LayerNorm(s.hidden, bias=False)
        self.ffn = MptMLP(s, s.attention_dropout)
        self._dropout = s.attention_dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        normed = self.norm_1(t, hidden)
        residual = hidden
        attended = self.attn(t, normed, call)
        t.local(t.handed.take_weights())
        hidden = ops.add(
            t, ops.dropout(t, attended, self._dropout, "residual dropout"), residual, "residual stream after attention"
        )
        normed = self.norm_2(t, hidden)
        residual = hidden
        out: Tensor = self.ffn(t, normed, residual)
        return out


class Mpt(CausalDecoder):
    """The causal language model."""

    default_targets = ("Wqkv",)

    def __init__(self, config: Config) -> None:
        inside = config.nested("attn_config") or Config({}, config.transformers)
        own = {"num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}
        over = {usual: config.entries[name] for usual, name in own.items() if name in config.entries}
        width = config.integer("hidden_size", "d_model")
        dropout = {"attention_dropout": inside.number("attn_pdrop", 0.0, 0, 1)}
        s = Shape.read(config.over({**over, **dropout}), tied=True, intermediate=4 * width, act="gelu", rotary=0)
        clip = inside.has("clip_qkv") and inside.number("clip_qkv", 0.0, 0, 1e9) > 0
        self._positions = config.integer("max_seq_len", default=2048)
        names = PartNames("transformer", "wte", "blocks", "norm_f")
        self.assemble(s, lambda _: MptBlock(s, clip), s.windows, norm=_norm, names=names)

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token embeddings, alibi for every position the model knows, and the mask as truth values."""
        hidden = lookup(t, self.embedding, call)
        t.end(call.shared.pop("position ids"))
        call.shared["alibi"] = t.new(ONE * (self.s.heads * self._positions), "float32", 1, "alibi")
        mask = causal_mask(t, call)
        if mask is not None:
            call.masks["full"] = t.replace(mask, t.new(mask.numel, "bool", 1, "attention mask"))
        return hidden

    def attention_for(self, recipe: Recipe) -> str:
        """There is only an eager implementation."""
        return "eager"


def _norm(width: int) -> LayerNorm:
    return LayerNorm(width, bias=False)

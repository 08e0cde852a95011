"""MPNet with its masked-language-model head: BERT with a learned bias for every distance, in eager attention alone.

Source: transformers 5.23, models/mpnet/modeling_mpnet.py (`MPNetForMaskedLM`).
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import hold_embeddings, padding_mask
from loralens.core.architecture.config import Config
from loralens.core.architecture.families.bert import BertIntermediate, BertOutput
from loralens.core.architecture.families.roberta import Roberta
from loralens.core.architecture.families.t5_layers import T5Attention
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.shape import Shape
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.rows import like
from loralens.core.tape.size import SEQUENCE_SQUARED, TOKENS, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape


class MPNetSelfAttention(Module):
    """`attn.`: four projections, and the product with the biases added in place."""

    def __init__(self, s: Shape) -> None:
        for name, label in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output projection")):
            setattr(self, name, Linear(s.hidden, s.hidden, True, name=f"attention {label}"))
        self._s = s

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        q, k, v = self.q(t, x).view(width), self.k(t, x).view(width), self.v(t, x).view(width)
        pairs = TOKENS_BY_SEQUENCE * s.heads
        flops = pairs * (2 * width)
        scores = ops.matmul(t, self._by_head(t, q), self._by_head(t, k), pairs, 1, "attention: scores", flops=flops)
        scores = t.replace(scores, ops.scale(t, scores, "attention: scaled scores"))
        scores = _biased(t, scores, call.shared["position biases"])
        mask = call.masks["full"]
        if mask is not None:
            scores = ops.add(t, scores, mask, "attention: masked scores")
        weights = ops.softmax(t, scores, "float32" if t.autocast else None, "attention: softmax")
        weights = ops.dropout(t, weights, s.attention_dropout, "attention: dropout")
        out = ops.matmul(
            t, weights, self._by_head(t, v), TOKENS * s.hidden, width, "attention: output by head", flops=flops
        )
        out = t.replace(out, ops.copy(t, out, "attention: output", width=s.hidden))
        result: Tensor = self.o(t, out)
        return result

    @staticmethod
    def _by_head(t: Tape, x: Tensor) -> Tensor:
        """As a batched product needs it: with more samples than one, what lies by token is copied to lie by head."""
        if t.autocast is not None:
            x = ops.cast(t, x, t.autocast, "attention: input cast by autocast")
        return ops.copy(t, x, "attention: input by head") if t.validity.exceeds("micro_batch_size", 1) else x


def _biased(t: Tape, scores: Tensor, biases: Tensor) -> Tensor:
    """`scores += biases`: the scores' own storage; the biases' gradient is the scores', in their dtype."""
    out = Tensor(scores.storage, scores.numel, scores.dtype, scores.width)
    numel, dtype = biases.numel, biases.dtype

    def apply(g: Tensor) -> list[Tensor]:
        return [g.view(), g.view() if g.dtype == dtype else like(t, numel, dtype, 1, "gradient: position biases, cast")]

    t.record("attention: biased scores", [out], [scores, biases], [], apply)
    return out


class MPNetAttention(Module):
    """Attention, dropout, and a norm over the sum with the input."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.attn = MPNetSelfAttention(s)
        self.LayerNorm = LayerNorm(s.hidden)
        self._dropout = dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        out = self.attn(t, x, call)
        dropped = ops.dropout(t, out, self._dropout, "residual dropout")
        result: Tensor = self.LayerNorm(t, ops.add(t, dropped, x, "residual stream"))
        return result


class MPNetLayer(Module):
    """Post-norm attention and MLP."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.attention = MPNetAttention(s, dropout)
        self.intermediate = BertIntermediate(s)
        self.output = BertOutput(s.intermediate, s.hidden, dropout, "mlp down")

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        attended = self.attention(t, hidden, call)
        up = self.intermediate(t, attended)
        result: Tensor = self.output(t, up, attended)
        return result


class MPNetEmbeddings(Module):
    """Words and positions, which skip padding, summed and normed."""

    def __init__(self, s: Shape, positions: int) -> None:
        self.word_embeddings = Embedding(s.vocabulary, s.hidden)
        self.position_embeddings = Embedding(positions, s.hidden)
        self.LayerNorm = LayerNorm(s.hidden)

    def forward(self, t: Tape, call: Call, dropout: float) -> Tensor:
        """Shapes: to (rows, hidden)."""
        numbers = t.new(TOKENS, "int64", 1, "position ids")
        words: Tensor = self.word_embeddings(t, TOKENS)
        hold_embeddings(t, words, call)
        placed = self.position_embeddings(t, TOKENS, "position embeddings", numbers)
        hidden = ops.add(t, words, placed, "embeddings")
        call.held.clear()
        hidden = self.LayerNorm(t, hidden)
        return ops.dropout(t, hidden, dropout, "embeddings: dropout")


class MPNet(Roberta):
    """The masked language model."""

    inner = "mpnet"
    default_targets = ("q", "v")

    def __init__(self, config: Config) -> None:
        super().__init__(config.over({"pad_token_id": 1, "type_vocab_size": 1}))
        s, parts = self._s, self.roberta
        del self.roberta
        positions = config.integer("max_position_embeddings", default=512)
        parts.embeddings = MPNetEmbeddings(s, positions)
        parts.encoder.layer = Stack(lambda _: MPNetLayer(s, self._dropout), s.windows)
        buckets = config.integer("relative_attention_num_buckets", default=32)
        parts.encoder.relative_attention_bias = Embedding(buckets, s.heads)
        self.mpnet = parts
        self.buffer_bytes = positions * 8
        if s.tied:
            self.lm_head.decoder.weight = parts.embeddings.word_embeddings.weight

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Encoder, head, and cross entropy in the logits' own dtype."""
        if checkpointing:
            raise UnsupportedArchitecture(
                "MPNet has no gradient checkpointing in transformers",
                field="gradient_checkpointing",
                hint="set gradient_checkpointing to false",
            )
        call.attention = self.attention_for(call.recipe)
        hidden = self.embedded(t, call)
        call.masks["full"] = padding_mask(t, call)
        call.shared["position biases"] = self._biases(t)
        t.ledger.mark("embeddings")
        name, layers = "mpnet.encoder.layer", self.mpnet.encoder.layer.layers
        hidden = walk_stack(t, name, layers, hidden, call, checkpointing=False)
        after = call.after()
        t.section = "logits"
        loss = self.loss(t, hidden, after)
        t.section = "activations"
        return loss

    def _biases(self, t: Tape) -> Tensor:
        """A row of the table for every pair of positions, laid out by head for every sample."""
        encoder = self.mpnet.encoder
        heads = self._s.heads
        buckets = T5Attention.buckets(t)
        table = encoder.relative_attention_bias(t, SEQUENCE_SQUARED, "position biases", buckets)
        return ops.copy(t, table, "position biases of every sample", TOKENS_BY_SEQUENCE * heads, 1)

    def attention_for(self, recipe: Recipe) -> str:
        """There is no other."""
        return "eager"

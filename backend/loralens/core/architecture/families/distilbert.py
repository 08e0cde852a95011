"""DistilBERT with its masked-language-model head: BERT without segments, under names of its own.

Source: transformers 5.23, models/distilbert/modeling_distilbert.py (`DistilBertForMaskedLM`).
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import Attention, LayerNorm, PlainMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import Root, hold_embeddings, padding_mask
from loralens.core.architecture.config import Config
from loralens.core.architecture.heads import (
    EMBEDDING,
    QUESTION_ANSWERING,
    REWARD,
    SEQUENCE_CLASSIFICATION,
    Head,
    attach,
    first_token,
    output_layer,
)
from loralens.core.architecture.loss import plain_cross_entropy
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.shape import Shape
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE, TOKENS
from loralens.core.tape.tape import Tape


class DistilBertAttention(Module):
    """Four projections and the kernel."""

    def __init__(self, s: Shape) -> None:
        for name, label in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "output projection")):
            setattr(self, f"{name}_lin", Linear(s.hidden, s.hidden, True, name=f"attention {label}"))
        self.s = s

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self.s, self.s.head_dim
        q, k, v = self.q_lin(t, x).view(width), self.k_lin(t, x).view(width), self.v_lin(t, x).view(width)
        kernel = Attention(
            s.heads, s.heads, width, width, call.attention, s.attention_dropout, softmax_dtype=None, causal=False
        )
        out = kernel(t, q, k, v, call.masks["full"])
        result: Tensor = self.out_lin(t, out.view(s.hidden))
        return result


class DistilBertLayer(Module):
    """Post-norm attention and MLP."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.attention = DistilBertAttention(s)
        self.sa_layer_norm = LayerNorm(s.hidden)
        self.ffn = PlainMLP(s.hidden, s.intermediate, ("lin1", "lin2"), s.act, dropout=dropout)
        self.output_layer_norm = LayerNorm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        attended = self.attention(t, hidden, call)
        attended = self.sa_layer_norm(t, ops.add(t, attended, hidden, "residual stream after attention"))
        fed = self.ffn(t, attended)
        out: Tensor = self.output_layer_norm(t, ops.add(t, fed, attended, "residual stream after the layer"))
        return out


class DistilBertPooler(Linear):
    """The first token's vector through a layer and a ReLU."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden, hidden, True, name="pooler")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (samples, hidden)."""
        return activation(t, super().forward(t, first_token(t, x)), "relu", "pooler: ReLU")


class DistilBert(Root):
    """The masked language model."""

    default_targets = ("q_lin", "v_lin")
    own_loss = last_apart = True

    def __init__(self, config: Config) -> None:
        names = {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
        names["hidden_dim"] = "intermediate_size"
        own = config.over({usual: config.entries[name] for name, usual in names.items() if name in config.entries})
        s = Shape.read(own, tied=True, act="gelu", rotary=0, dropout=0.1)
        self._dropout = config.number("dropout", 0.1, 0, 1)
        positions = config.integer("max_position_embeddings", default=512)
        self.distilbert = Module()
        self.distilbert.embeddings = embeddings = Module()
        embeddings.word_embeddings = Embedding(s.vocabulary, s.hidden)
        embeddings.position_embeddings = Embedding(positions, s.hidden)
        embeddings.LayerNorm = LayerNorm(s.hidden)
        self.distilbert.transformer = Module()
        self.distilbert.transformer.layer = Stack(lambda _: DistilBertLayer(s, self._dropout), s.windows)
        self.vocab_transform = Linear(s.hidden, s.hidden, True, name="head: transform")
        self.vocab_layer_norm = LayerNorm(s.hidden)
        self.vocab_projector = self.head = Linear(s.hidden, s.vocabulary, True, name="head")
        if s.tied:
            self.vocab_projector.weight = embeddings.word_embeddings.weight
        self.vocabulary, self.tied, self.s = s.vocabulary, s.tied, s
        self.buffer_bytes = positions * 8
        self.learned_positions = positions

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Encoder, head, and cross entropy in the logits' own dtype."""
        hidden = self.embed(t, call)
        call.masks["full"] = padding_mask(t, call)
        t.ledger.mark("embeddings")
        name, layers = "distilbert.transformer.layer", self.distilbert.transformer.layer.layers
        hidden = walk_stack(t, name, layers, hidden, call, checkpointing=checkpointing)
        after = call.after()
        t.section = "logits"
        loss = self.loss(t, hidden, after)
        t.section = "activations"
        return loss

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """The masked language model's, or another head's."""
        if self.task is not None:
            return self.task.loss(t, hidden)
        logits = self.logits(t, hidden)
        t.handed.returned(logits)
        return plain_cross_entropy(t, logits)

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """`classifier` on the first token's vector (through `pre_classifier`) or on every token, `qa_outputs`, or none."""
        del self.vocab_transform, self.vocab_layer_norm, self.vocab_projector, self.head
        if kind == EMBEDDING:
            return attach(self, "", Head(kind, None))
        output = output_layer(self.s.hidden, labels, bias=True)
        if kind == QUESTION_ANSWERING:
            return attach(self, "qa_outputs", Head(kind, output, config.number("qa_dropout", 0.1, 0, 1)))
        if kind not in (SEQUENCE_CLASSIFICATION, REWARD):
            return attach(self, "classifier", Head(kind, output, self._dropout))
        self.pre_classifier = DistilBertPooler(self.s.hidden)
        dropout = config.number("seq_classif_dropout", 0.2, 0, 1)
        return attach(self, "classifier", Head(kind, output, dropout, self.pre_classifier))

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Words and positions, summed and normalized."""
        parts = self.distilbert.embeddings
        words: Tensor = parts.word_embeddings(t, TOKENS)
        hold_embeddings(t, words, call)
        positions = parts.position_embeddings(t, SEQUENCE, "position embeddings")
        hidden = ops.add(t, words, positions, "embeddings")
        call.held.clear()
        hidden = parts.LayerNorm(t, hidden)
        return ops.dropout(t, hidden, self._dropout, "embeddings: dropout")

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """Transform, activation, norm, output embedding."""
        x = self.vocab_transform(t, hidden)
        x = activation(t, x, self.s.act, "head: activated")
        x = self.vocab_layer_norm(t, x)
        out: Tensor = self.vocab_projector(t, x)
        return out

"""BERT with its masked-language-model head; `sequence_length` is the number of tokens, every one of which has a label.

Source: transformers 5.23, models/bert/modeling_bert.py (`BertForMaskedLM`).
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import Attention, LayerNorm
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
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import SEQUENCE, TOKENS
from loralens.core.tape.tape import Tape


class BertSelfAttention(Module):
    """`self.`: three projections and the kernel."""

    def __init__(self, s: Shape) -> None:
        self.query = Linear(s.hidden, s.hidden, True, name="attention query")
        self.key = Linear(s.hidden, s.hidden, True, name="attention key")
        self.value = Linear(s.hidden, s.hidden, True, name="attention value")
        self._s = s

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        q, k, v = self.query(t, x).view(width), self.key(t, x).view(width), self.value(t, x).view(width)
        kernel = Attention(
            s.heads, s.heads, width, width, call.attention, s.attention_dropout, softmax_dtype=None, causal=False
        )
        return kernel(t, q, k, v, call.masks["full"]).view(s.hidden)


class BertOutput(Module):
    """Linear, dropout, and a norm over the sum with the input."""

    def __init__(self, inputs: int, hidden: int, dropout: float, name: str) -> None:
        self.dense = Linear(inputs, hidden, True, name=name)
        self.LayerNorm = LayerNorm(hidden)
        self._dropout = dropout

    def forward(self, t: Tape, x: Tensor, residual: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows, hidden)."""
        x = self.dense(t, x)
        x = ops.dropout(t, x, self._dropout, "residual dropout")
        return self.LayerNorm(t, ops.add(t, x, residual, "residual stream"))


class BertIntermediate(Module):
    """Linear and activation."""

    def __init__(self, s: Shape) -> None:
        self.dense = Linear(s.hidden, s.intermediate, True, name="mlp up")
        self._act = s.act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (rows, intermediate)."""
        x = self.dense(t, x)
        return activation(t, x, self._act, "mlp: activated")


class BertAttention(Module):
    """Attention and what follows it."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.self = BertSelfAttention(s)
        self.output = BertOutput(s.hidden, s.hidden, dropout, "attention output projection")

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        return self.output(t, self.self(t, x, call), x)


class BertLayer(Module):
    """Post-norm attention and MLP."""

    def __init__(self, s: Shape, dropout: float) -> None:
        self.attention = BertAttention(s, dropout)
        self.intermediate = BertIntermediate(s)
        self.output = BertOutput(s.intermediate, s.hidden, dropout, "mlp down")

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        attended = self.attention(t, hidden, call)
        return self.output(t, self.intermediate(t, attended), attended)


class BertEmbeddings(Module):
    """Words, positions and segments, summed and normed."""

    def __init__(self, s: Shape, positions: int, types: int) -> None:
        self.word_embeddings = Embedding(s.vocabulary, s.hidden)
        self.position_embeddings = Embedding(positions, s.hidden)
        self.token_type_embeddings = Embedding(types, s.hidden)
        self.LayerNorm = LayerNorm(s.hidden)

    def forward(self, t: Tape, call: Call, dropout: float) -> Tensor:
        """Shapes: to (rows, hidden)."""
        words: Tensor = self.word_embeddings(t, TOKENS)
        hold_embeddings(t, words, call)
        types = t.new(SEQUENCE, "int64", 1, "segment ids")
        segments = self.token_type_embeddings(t, TOKENS, "segment embeddings", types)
        hidden = ops.add(t, words, segments, "embeddings: words and segments")
        positions = self.position_embeddings(t, SEQUENCE, "position embeddings")
        hidden = ops.add(t, hidden, positions, "embeddings")
        call.held.clear()
        hidden = self.LayerNorm(t, hidden)
        return ops.dropout(t, hidden, dropout, "embeddings: dropout")


class Bert(Root):
    """The masked language model."""

    default_targets: tuple[str, ...] | str = ("query", "value")
    own_loss = last_apart = True
    inner = "bert"

    def __init__(self, config: Config) -> None:
        config.refuse("is_decoder", "BERT as a decoder")
        config.refuse("add_cross_attention", "cross attention")
        s = Shape.read(
            config, tied=True, act="gelu", rotary=0, dropout=config.number("attention_probs_dropout_prob", 0.1, 0, 1)
        )
        self._dropout = config.number("hidden_dropout_prob", 0.1, 0, 1)
        positions = config.integer("max_position_embeddings", default=512)
        self.bert = Module()
        self.bert.embeddings = BertEmbeddings(s, positions, config.integer("type_vocab_size", default=2))
        self.bert.encoder = Module()
        self.bert.encoder.layer = Stack(lambda _: BertLayer(s, self._dropout), s.windows)
        self.cls = Module()
        self.cls.predictions = predictions = BertHead(s)
        if s.tied:
            predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
            predictions.decoder.bias = predictions.bias
        self.vocabulary, self.tied, self._s = s.vocabulary, s.tied, s
        self.buffer_bytes = positions * 8 * 2
        self.learned_positions = positions

    @property
    def head(self) -> Linear:  # type: ignore[override]
        """The output embedding, or the last layer of another head."""
        found: Linear = self.task.output if self.task else self.prediction.decoder  # type: ignore[assignment]
        return found

    @property
    def prediction(self) -> Module:
        """Turns the encoder's output into logits."""
        found: Module = self.cls.predictions
        return found

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Encoder, head, and cross entropy in the logits' own dtype."""
        call.attention = self.attention_for(call.recipe)
        hidden = self.embedded(t, call)
        call.masks["full"] = self.mask(t, call)
        t.ledger.mark("embeddings")
        name, layers = f"{self.inner}.encoder.layer", getattr(self, self.inner).encoder.layer.layers
        hidden = self.run_layers(t, name, layers, hidden, call, checkpointing=checkpointing)
        after = call.after()
        t.section = "logits"
        loss = self.loss(t, hidden, after)
        t.section = "activations"
        return loss

    def embedded(self, t: Tape, call: Call) -> Tensor:
        """What the first layer is given."""
        found: Tensor = getattr(self, self.inner).embeddings(t, call, self._dropout)
        return found

    def mask(self, t: Tape, call: Call) -> Tensor | None:
        """What every layer is handed."""
        return padding_mask(t, call)

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """The masked language model's, or another head's."""
        if self.task is not None:
            return self.task.loss(t, hidden)
        logits = self.prediction(t, hidden)
        t.handed.returned(logits)
        return plain_cross_entropy(t, logits)

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """`classifier` on the pooler's vector or on every token, `qa_outputs`, or the base model with its pooler."""
        del self.cls
        self._attach(kind, labels, config, pooler=True)

    def _attach(self, kind: str, labels: int, config: Config, *, pooler: bool) -> None:
        s, encoder = self._s, getattr(self, self.inner)
        dropout = config.number("classifier_dropout", self._dropout, 0, 1)
        if kind == EMBEDDING or (pooler and kind in (SEQUENCE_CLASSIFICATION, REWARD)):
            encoder.pooler = BertPooler(s.hidden)
        if kind == EMBEDDING:
            return attach(self, "", Head(kind, None, pooled=encoder.pooler))
        output = output_layer(s.hidden, labels, bias=True)
        if kind == QUESTION_ANSWERING:
            return attach(self, "qa_outputs", Head(kind, output))
        pooled = encoder.pooler if kind in (SEQUENCE_CLASSIFICATION, REWARD) else None
        return attach(self, "classifier", Head(kind, output, dropout, pooled))


class BertPooler(Module):
    """The first token's vector, turned and squashed."""

    def __init__(self, hidden: int) -> None:
        self.dense = Linear(hidden, hidden, True, name="pooler")

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (samples, hidden)."""
        x = self.dense(t, first_token(t, hidden))
        return ops.tanh(t, x, "pooler: tanh")


class BertHead(Module):
    """Transform and output embedding; the bias is a parameter of its own, tied to the decoder's."""

    def __init__(self, s: Shape) -> None:
        self.transform = Module()
        self.transform.dense = Linear(s.hidden, s.hidden, True, name="head: transform")
        self.transform.LayerNorm = LayerNorm(s.hidden)
        self.decoder = Linear(s.hidden, s.vocabulary, True, name="head")
        self.bias = Parameter((s.vocabulary,))
        self._act = s.act

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (rows, vocabulary)."""
        hidden = self.transform.dense(t, hidden)
        hidden = activation(t, hidden, self._act, "head: activated")
        hidden = self.transform.LayerNorm(t, hidden)
        out: Tensor = self.decoder(t, hidden)
        return out

"""RoBERTa, XLM-RoBERTa and CamemBERT with their masked-language-model head: BERT whose positions are counted per sample.

Source: transformers 5.23, models/{roberta,xlm_roberta,camembert}/modeling_*.py (`RobertaForMaskedLM`).
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import hold_embeddings
from loralens.core.architecture.config import Config
from loralens.core.architecture.families.bert import Bert, BertEmbeddings
from loralens.core.architecture.heads import REWARD, SEQUENCE_CLASSIFICATION, Head, attach, first_token, output_layer
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class RobertaEmbeddings(BertEmbeddings):
    """Positions skip padding, so every sample has its own, and its own segment ids."""

    def forward(self, t: Tape, call: Call, dropout: float) -> Tensor:
        """Shapes: to (rows, hidden)."""
        positions = t.new(TOKENS, "int64", 1, "position ids")
        types = t.new(TOKENS, "int64", 1, "segment ids")
        words: Tensor = self.word_embeddings(t, TOKENS)
        hold_embeddings(t, words, call)
        segments = self.token_type_embeddings(t, TOKENS, "segment embeddings", types)
        hidden = ops.add(t, words, segments, "embeddings: words and segments")
        placed = self.position_embeddings(t, TOKENS, "position embeddings", positions)
        hidden = ops.add(t, hidden, placed, "embeddings")
        call.held.clear()
        hidden = self.LayerNorm(t, hidden)
        return ops.dropout(t, hidden, dropout, "embeddings: dropout")


class RobertaHead(Module):
    """Dense, GELU, norm and output embedding."""

    def __init__(self, s: Shape) -> None:
        self.dense = Linear(s.hidden, s.hidden, True, name="head: transform")
        self.layer_norm = LayerNorm(s.hidden)
        self.decoder = Linear(s.hidden, s.vocabulary, True, name="head")
        self.bias = Parameter((s.vocabulary,))

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (rows, vocabulary)."""
        x = self.dense(t, hidden)
        x = ops.gelu(t, x, "head: activated")
        x = self.layer_norm(t, x)
        out: Tensor = self.decoder(t, x)
        return out


class RobertaClassifier(Module):
    """The first token's vector through a layer of its own; `out_proj` is the head's output."""

    def __init__(self, hidden: int, labels: int, dropout: float) -> None:
        self.dense = Linear(hidden, hidden, True, name="head: transform")
        self.out_proj = output_layer(hidden, labels, bias=True)
        self._dropout = dropout

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (samples, hidden)."""
        x = ops.dropout(t, first_token(t, hidden), self._dropout, "head: dropout")
        x = self.dense(t, x)
        return ops.tanh(t, x, "head: tanh")


class Roberta(Bert):
    """The masked language model."""

    inner = "roberta"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        s, parts = self._s, self.bert
        del self.bert, self.cls
        types = config.integer("type_vocab_size", default=2)
        self.learned_positions = max(
            0, (self.learned_positions or 0) - 1 - config.integer("pad_token_id", low=0, default=1)
        )
        parts.embeddings = RobertaEmbeddings(s, config.integer("max_position_embeddings", default=512), types)
        self.roberta = parts
        self.lm_head = RobertaHead(s)
        if s.tied:
            self.lm_head.decoder.weight = parts.embeddings.word_embeddings.weight
            self.lm_head.decoder.bias = self.lm_head.bias

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """BERT's, but for one label: two layers on the first token, without a pooler."""
        del self.lm_head
        if kind not in (SEQUENCE_CLASSIFICATION, REWARD):
            return self._attach(kind, labels, config, pooler=False)
        dropout = config.number("classifier_dropout", self._dropout, 0, 1)
        classifier = RobertaClassifier(self._s.hidden, labels, dropout)
        attach(self, "classifier", Head(kind, classifier.out_proj, dropout, classifier))
        return setattr(self, "classifier", classifier)

    @property
    def prediction(self) -> Module:
        """Turns the encoder's output into logits."""
        found: Module = self.lm_head
        return found

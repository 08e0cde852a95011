"""ELECTRA with the generator's masked-language-model head: BERT whose embeddings may be narrower than its layers.

Source: transformers 5.23, models/electra/modeling_electra.py (`ElectraForMaskedLM`).
"""

from __future__ import annotations

from dataclasses import replace

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.families.bert import Bert, BertEmbeddings
from loralens.core.architecture.families.roberta import RobertaClassifier
from loralens.core.architecture.heads import (
    EMBEDDING,
    REWARD,
    SEQUENCE_CLASSIFICATION,
    Head,
    attach,
    first_token,
)
from loralens.core.architecture.loss import plain_cross_entropy
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class ElectraPredictions(Module):
    """Dense, GELU and norm, as wide as the embeddings."""

    def __init__(self, hidden: int, width: int) -> None:
        self.LayerNorm = LayerNorm(width)
        self.dense = Linear(hidden, width, True, name="head: transform")

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (rows, width)."""
        hidden = self.dense(t, hidden)
        hidden = ops.gelu(t, hidden, "head: activated")
        return self.LayerNorm(t, hidden)


class ElectraClassifier(RobertaClassifier):
    """GELU in the place of tanh."""

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (samples, hidden)."""
        x = ops.dropout(t, first_token(t, hidden), self._dropout, "head: dropout")
        x = self.dense(t, x)
        return ops.gelu(t, x, "head: activated")


class Electra(Bert):
    """The masked language model."""

    inner = "electra"

    def __init__(self, config: Config) -> None:
        defaults = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "num_hidden_layers": 12}
        config = config.over({}, defaults)
        super().__init__(config)
        s, parts = self._s, self.bert
        del self.bert, self.cls
        width = config.integer("embedding_size", default=128)
        positions = config.integer("max_position_embeddings", default=512)
        types = config.integer("type_vocab_size", default=2)
        parts.embeddings = BertEmbeddings(replace(s, hidden=width), positions, types)
        if width != s.hidden:
            parts.embeddings_project = Linear(width, s.hidden, True, name="embeddings, widened")
        self.electra = parts
        self.generator_predictions = ElectraPredictions(s.hidden, width)
        self.generator_lm_head = Linear(width, s.vocabulary, True, name="head")
        if s.tied:
            self.generator_lm_head.weight = parts.embeddings.word_embeddings.weight

    @property
    def head(self) -> Linear:  # type: ignore[override]
        """The output embedding, or the last layer of another head."""
        found: Linear = self.task.output if self.task else self.generator_lm_head  # type: ignore[assignment]
        return found

    def embedded(self, t: Tape, call: Call) -> Tensor:
        """As wide as the layers."""
        hidden = super().embedded(t, call)
        wider: Module | None = getattr(self.electra, "embeddings_project", None)
        return hidden if wider is None else t.replace(hidden, wider(t, hidden))

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """The masked language model's, or another head's."""
        if self.task is not None:
            return self.task.loss(t, hidden)
        scores = self.generator_predictions(t, hidden)
        logits = t.replace(scores, self.generator_lm_head(t, scores))
        t.handed.returned(logits)
        return plain_cross_entropy(t, logits)

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """BERT's, but for one label: two layers on the first token, without a pooler."""
        del self.generator_predictions, self.generator_lm_head
        if kind == EMBEDDING:
            return attach(self, "", Head(kind, None))
        if kind not in (SEQUENCE_CLASSIFICATION, REWARD):
            return self._attach(kind, labels, config, pooler=False)
        dropout = config.number("classifier_dropout", self._dropout, 0, 1)
        classifier = ElectraClassifier(self._s.hidden, labels, dropout)
        attach(self, "classifier", Head(kind, classifier.out_proj, dropout, classifier))
        return setattr(self, "classifier", classifier)

"""BART, mBART, Pegasus and M2M-100 (NLLB): encoder and decoder with learned or computed positions.

`sequence_length` is the length of the encoder's input and of the labels, as a batch of both has it.

Source: transformers 5.23, models/{bart,mbart,pegasus,m2m_100}/modeling_*.py (`…ForConditionalGeneration`).
"""

from __future__ import annotations

from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import Root
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.families.bart_layers import Widths
from loralens.core.architecture.families.bart_stacks import BartStack, M2MStack, MBartStack, PegasusStack
from loralens.core.architecture.families.t5 import BOTH_LENGTHS
from loralens.core.architecture.families.whisper import NO_LAYERDROP
from loralens.core.architecture.heads import (
    EMBEDDING,
    QUESTION_ANSWERING,
    REWARD,
    SEQUENCE_CLASSIFICATION,
    Head,
    attach,
    no_such_head,
    output_layer,
)
from loralens.core.architecture.loss import plain_cross_entropy
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.architecture.shape import MAX_HEADS
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, ONE, SEQUENCE, TOKENS
from loralens.core.tape.tape import Tape


class Bart(Root):
    """Encoder, decoder and head."""

    default_targets: tuple[str, ...] | str = ("q_proj", "v_proj")
    own_loss = current_code = last_apart = True
    stack: type[BartStack] = BartStack
    first = False  # norms come before the branches
    act, attention_dropout, layerdrop = "gelu", 0.0, 0.0
    biased = True  # a bias that never trains is added to the logits
    heads = True  # has heads beside the language model's

    def __init__(self, config: Config) -> None:
        if not config.flag("tie_word_embeddings", True):
            raise UnsupportedArchitecture(
                "embeddings that encoder, decoder and head do not share are not modelled",
                field="config.tie_word_embeddings",
            )
        w = Widths.read(config, self.act, self.attention_dropout, first=self.first)
        vocabulary = config.integer("vocab_size", high=MAX_VOCABULARY)
        places = config.integer("max_position_embeddings", default=1024)
        self.model = Module()
        self.model.shared = Embedding(vocabulary, w.hidden)
        for side, decodes in (("encoder", False), ("decoder", True)):
            heads = config.integer(f"{side}_attention_heads", default=16, high=MAX_HEADS)
            config.divides(f"{side}_attention_heads", w.hidden, heads)
            layers = config.integer(f"{side}_layers", default=12, high=MAX_LAYERS)
            shape = (config.integer(f"{side}_ffn_dim", default=4096), heads, layers)
            setattr(self.model, side, self.stack(self.model.shared.weight, w, places, shape, decodes=decodes))
        self.lm_head = Linear(w.hidden, vocabulary, name="head")
        self.lm_head.weight = self.model.shared.weight
        self.head, self.vocabulary, self.tied = self.lm_head, vocabulary, True
        self.learned_positions = places
        self.buffer_numbers = vocabulary if self.biased else 0
        self._width = w.hidden
        drops = (config.number(f"{side}_layerdrop", self.layerdrop, 0, 1) for side in ("encoder", "decoder"))
        self._drops = max(drops)

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Encoder, decoder, head, and cross entropy in the logits' own dtype."""
        given = t.new(TOKENS, "int64", 1, "labels, shifted")
        encoded = self.model.encoder(t, None, call.of_length(SEQUENCE), checkpointing)
        hidden = self.model.decoder(t, given, call.of_length(SEQUENCE), checkpointing, encoded)
        t.section = "logits"
        loss = self.task.loss(t, hidden) if self.task else self._written(t, hidden, encoded, call)
        t.section = "activations"
        return loss

    def _written(self, t: Tape, hidden: Tensor, encoded: Tensor, call: Call) -> Tensor:
        logits = self.lm_head(t, hidden)
        if self.biased:
            bias = Tensor(None, ONE * self.vocabulary, call.recipe.weights_dtype, self.vocabulary)  # booked as a buffer
            logits = t.replace(logits, ops.add(t, logits, bias, "logits and bias"))
        t.handed.returned(logits, encoded)
        return plain_cross_entropy(t, logits)

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """BART and mBART have one on the last end of a sample, one for spans, and the base model."""
        single = kind in (SEQUENCE_CLASSIFICATION, REWARD)
        if kind != EMBEDDING and not (self.heads and (single or kind == QUESTION_ANSWERING)):
            raise no_such_head(model_type, kind)
        del self.lm_head
        self.buffer_numbers = 0 if self.biased else self.buffer_numbers
        if kind == EMBEDDING:
            return attach(self, "", Head(kind, None))
        if kind == QUESTION_ANSWERING:
            return attach(self, "qa_outputs", Head(kind, output_layer(self._width, labels, bias=True)))
        dropout = config.number("classifier_dropout", 0.0, 0, 1)
        classifier = BartClassifier(self._width, labels, dropout)
        attach(self, "classification_head", Head(kind, classifier.out_proj, dropout, classifier))
        return setattr(self, "classification_head", classifier)

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]]:
        """The encoder sees everything, the decoder what came before and everything of the encoder."""
        length = float(recipe.sequence_length)
        own = length if recipe.attention == "eager" else (length + 1) / 2
        encoder, decoder = self.model.encoder.layers, self.model.decoder.layers
        return [(self._width, length)] * (len(encoder) + len(decoder)) + [(self._width, own)] * len(decoder)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What a sequence is here, and that no layer is left out."""
        dropped = [NO_LAYERDROP.format(share=self._drops)] if self._drops else []
        return [*super().assumptions(recipe), BOTH_LENGTHS, *dropped]


class BartClassifier(Module):
    """The vector of a sample's last end through a layer of its own; `out_proj` is the head's output."""

    def __init__(self, hidden: int, labels: int, dropout: float) -> None:
        self.dense = Linear(hidden, hidden, True, name="head: transform")
        self.out_proj = output_layer(hidden, labels, bias=True)
        self._dropout, self._hidden = dropout, hidden

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (samples, hidden); every sample has one end."""
        t.local(t.new(TOKENS, "bool", 1, "head: which tokens are ends"))
        places = t.new(BATCH * 2, "int64", 2, "head: places of the ends")
        x = ops.indexed(t, hidden, places, BATCH * self._hidden, self._hidden, "head: vectors of the ends")
        x = self.dense(t, ops.dropout(t, x, self._dropout, "head: dropout"))
        return ops.tanh(t, x, "head: tanh")


class MBart(Bart):
    """Norms before the branches."""

    stack: type[BartStack] = MBartStack
    first = True


class M2M100(MBart):
    """M2M-100 and NLLB: no bias on the logits."""

    stack = M2MStack
    act, attention_dropout, layerdrop = "relu", 0.1, 0.05
    biased = heads = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        places, self.learned_positions = self.learned_positions or 0, None
        self.buffer_numbers = 2 * (places + 2) * self._width


class Pegasus(MBart):
    """Pegasus."""

    stack = PegasusStack
    heads = False

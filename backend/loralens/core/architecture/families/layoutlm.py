"""LayoutLM with its masked-language-model head: BERT whose tokens also have a box on the page, and which masks by addition.

Source: transformers 5.23, models/layoutlm/modeling_layoutlm.py (`LayoutLMForMaskedLM`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from loralens.core.architecture.blocks import Attention
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import hold_embeddings
from loralens.core.architecture.config import Config
from loralens.core.architecture.families.bert import Bert, BertEmbeddings, BertLayer, BertPooler, BertSelfAttention
from loralens.core.architecture.heads import (
    EMBEDDING,
    QUESTION_ANSWERING,
    REWARD,
    SEQUENCE_CLASSIFICATION,
    Head,
    attach,
    output_layer,
)
from loralens.core.architecture.module import Embedding, Stack
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE, TOKENS, ZERO, Size
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.validity import Validity

_BOXES = "boxes"
_SIDES = 4  # left, upper, right and lower


class LayoutLMEmbeddings(BertEmbeddings):
    """And the box: its four sides, its height and its width."""

    def __init__(self, s: Shape, positions: int, types: int, places: int) -> None:
        super().__init__(s, positions, types)
        for axis in "xyhw":
            setattr(self, f"{axis}_position_embeddings", Embedding(places, s.hidden))

    def forward(self, t: Tape, call: Call, dropout: float) -> Tensor:
        """Shapes: to (rows, hidden)."""
        words: Tensor = self.word_embeddings(t, TOKENS)
        hold_embeddings(t, words, call)
        found = [t.local(self.position_embeddings(t, SEQUENCE, "position embeddings"))]
        for axis in "xyxy":  # the left, the upper, the right and the lower side
            table = getattr(self, f"{axis}_position_embeddings")
            found.append(t.local(table(t, TOKENS, "box embeddings", call.shared[_BOXES])))
        for axis in "hw":
            table, extents = getattr(self, f"{axis}_position_embeddings"), t.new(TOKENS, "int64", 1, "extents of boxes")
            found.append(t.local(table(t, TOKENS, "box embeddings", extents)))
            t.end(extents)
        types = call.shared["segment ids"]
        found.append(t.local(self.token_type_embeddings(t, TOKENS, "segment embeddings", types)))
        hidden = words
        for each in found:
            hidden = ops.add(t, hidden, each, "embeddings")
        call.held.remove(words)
        hidden = self.LayerNorm(t, hidden)
        return ops.dropout(t, hidden, dropout, "embeddings: dropout")


class LayoutLMSelfAttention(BertSelfAttention):
    """With a mask in every case, added to the scores; the kernel casts it under autocast.

    Leaves out: keys of a length that is no multiple of 16 are filled up in the kernel's own copy of the mask, a few bytes.
    """

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width, mask = self._s, self._s.head_dim, call.masks["full"]
        q, k, v = self.query(t, x).view(width), self.key(t, x).view(width), self.value(t, x).view(width)
        kernel = Attention(s.heads, s.heads, width, width, call.attention, s.attention_dropout, causal=False)
        if t.autocast is not None and mask is not None and call.attention == "sdpa":
            mask = ops.cast(t, mask, t.autocast, "attention: mask cast by autocast")
        return kernel(t, q, k, v, mask).view(s.hidden)


class LayoutLMLayer(BertLayer):
    """Post-norm attention and MLP."""

    def __init__(self, s: Shape, dropout: float) -> None:
        super().__init__(s, dropout)
        self.attention.self = LayoutLMSelfAttention(s)


class LayoutLM(Bert):
    """The masked language model, whose pooler runs for nothing."""

    inner = "layoutlm"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        s, parts = self._s, self.bert
        del self.bert
        positions = config.integer("max_position_embeddings", default=512)
        types = config.integer("type_vocab_size", default=2)
        places = config.integer("max_2d_position_embeddings", default=1024)
        parts.embeddings = LayoutLMEmbeddings(s, positions, types, places)
        parts.encoder.layer = Stack(lambda _: LayoutLMLayer(s, self._dropout), s.windows)
        parts.pooler = BertPooler(s.hidden)
        self.layoutlm = parts
        if s.tied:
            self.cls.predictions.decoder.weight = parts.embeddings.word_embeddings.weight
        self.buffer_bytes = positions * 8

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """And the boxes."""
        return [*super().inputs(recipe, validity), (_BOXES, TOKENS * (_SIDES * 8))]

    def unreached(self) -> Iterable[Parameter]:
        """The pooler's, where no head reads it."""
        return () if self.task is not None and self.task.pooled is not None else self.layoutlm.pooler.all_parameters()

    def embedded(self, t: Tape, call: Call) -> Tensor:
        """And the mask that the layers are handed: numbers, one for every key."""
        dtype = self.layoutlm.embeddings.word_embeddings.weight.dtype
        padded = call.recipe.padded  # then the batch has a mask, of whole numbers
        ones = t.new(ZERO if padded else TOKENS, "float32", 1, "mask of ones")
        call.shared["segment ids"] = types = t.new(TOKENS, "int64", 1, "segment ids")
        cast = t.new(TOKENS if padded or dtype != "float32" else ZERO, dtype, 1, "attention mask: cast")
        inverted = t.new(TOKENS, dtype, 1, "attention mask: inverted")
        mask = t.new(TOKENS, dtype, 1, "attention mask")
        t.end(inverted, cast)
        call.shared[_BOXES] = Tensor(None, TOKENS, "int64", 1)
        hidden = super().embedded(t, call)
        call.shared.clear()
        call.held += [ones, types]  # local variables of the model's forward
        call.masks["full"] = mask
        return hidden

    def mask(self, t: Tape, call: Call) -> Tensor | None:
        """Made before the embeddings."""
        return call.masks["full"]

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """With what the pooler makes, which the model's forward returns."""
        if self.task is not None and self.task.pooled is not None:
            return super().loss(t, hidden, call)
        pooled = self.layoutlm.pooler(t, hidden)
        loss = super().loss(t, hidden, call)
        t.end(pooled)
        return loss

    def attention_for(self, recipe: Recipe) -> str:
        """There is no flash implementation."""
        return "sdpa" if recipe.attention == "flash" else recipe.attention

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """`classifier` on the pooler's vector or on every token, `qa_outputs`, or the base model with its pooler."""
        del self.cls
        pooler = self.layoutlm.pooler
        if kind == EMBEDDING:
            return attach(self, "", Head(kind, None, pooled=pooler))
        output = output_layer(self._s.hidden, labels, bias=True)
        if kind == QUESTION_ANSWERING:
            return attach(self, "qa_outputs", Head(kind, output))
        pooled = pooler if kind in (SEQUENCE_CLASSIFICATION, REWARD) else None
        return attach(self, "classifier", Head(kind, output, self._dropout, pooled))

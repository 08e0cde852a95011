"""ViT with a linear classifier on the first token. A picture's size is the config's, so no length is left to choose.

Source: transformers 5.23, models/vit/modeling_vit.py (`ViTForImageClassification`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from loralens.core.architecture.blocks import Attention, LayerNorm, PlainMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import Root
from loralens.core.architecture.config import Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.loss import plain_cross_entropy
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.shape import Shape
from loralens.core.architecture.stack import walk_stack
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import BATCH, ONE, ZERO, Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

FIXED_SIZE: Final = (
    "pictures have the size in the config, so sequence_length changes nothing: a sequence is the patches of one picture "
    "and a first token"
)


class ViTAttention(Module):
    """Four projections around a kernel that sees the whole picture."""

    def __init__(self, s: Shape, bias: bool, tokens: int) -> None:
        width = s.heads * s.head_dim
        self.q_proj = Linear(s.hidden, width, bias, name="attention query")
        self.k_proj = Linear(s.hidden, width, bias, name="attention key")
        self.v_proj = Linear(s.hidden, width, bias, name="attention value")
        self.o_proj = Linear(width, s.hidden, True, name="attention output projection")
        self._s, self._tokens = s, tokens

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        kernel = Attention(
            s.heads,
            s.heads,
            width,
            width,
            call.attention,
            s.attention_dropout,
            returns_weights=True,
            keys=ONE * self._tokens,
        )
        out: Tensor = self.o_proj(t, kernel(t, q, k, v).view(s.heads * width))
        return out


class ViTLayer(Module):
    """Pre-norm attention and MLP."""

    def __init__(self, s: Shape, bias: bool, tokens: int, dropout: float) -> None:
        self.attention = ViTAttention(s, bias, tokens)
        self.layernorm_before = LayerNorm(s.hidden)
        self.layernorm_after = LayerNorm(s.hidden)
        self.mlp = PlainMLP(s.hidden, s.intermediate, ("fc1", "fc2"), s.act)
        self._dropout = dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.layernorm_before(t, hidden)
        hidden = self.attention(t, hidden, call)
        t.local(t.handed.take_weights())
        hidden = ops.dropout(t, hidden, self._dropout, "residual dropout")
        hidden = ops.add(t, hidden, residual, "residual stream after attention")
        residual = hidden
        hidden = self.layernorm_after(t, hidden)
        hidden = self.mlp(t, hidden)
        hidden = ops.dropout(t, hidden, self._dropout, "residual dropout")
        return ops.add(t, hidden, residual, "residual stream after the layer")


class ViTEmbeddings(Module):
    """A vector for each patch, one more in front of them, and their positions."""

    multiplies = False  # they are added

    def __init__(self, s: Shape, channels: int, patches: int, patch: tuple[int, int], dropout: float) -> None:
        self.cls_token = Parameter((1, 1, s.hidden))
        self.patch_embeddings = Module()
        self.patch_embeddings.projection = Convolution(channels, s.hidden, *patch, name="patch embeddings")
        self.position_embeddings = Parameter((1, patches + 1, s.hidden))
        self._hidden, self._patches, self._dropout = s.hidden, patches, dropout

    def forward(self, t: Tape, pixels: Tensor, call: Call) -> Tensor:
        """Shapes: to (batch * (patches + 1), hidden)."""
        several = call.validity.exceeds("micro_batch_size", 1)
        embeddings = self.patch_embeddings.projection(t, pixels, BATCH * self._patches)
        if call.input_gradients:
            t.require_grad(embeddings, copied=True)  # the patches lie last in memory, the hidden values first
        first = ops.broadcast(t, t.parameter(self.cls_token), BATCH * self._hidden, "first token", summed=several)
        if t.autocast is not None:  # autocast concatenates in the wider dtype
            embeddings = ops.cast(t, embeddings, first.dtype, "patch embeddings in the wider dtype")
        embeddings = ops.cat(t, [first, embeddings], self._hidden, "patches and first token")
        positions = t.parameter(self.position_embeddings)
        if several:
            positions = ops.broadcast(t, positions, embeddings.numel, "position embeddings", summed=True)
        else:
            positions.numel = embeddings.numel
        embeddings = ops.add(t, embeddings, positions, "embeddings")
        return ops.dropout(t, embeddings, self._dropout, "embeddings: dropout")


class ViT(Root):
    """The image classifier; two labels where the config names none."""

    default_targets = ("q_proj", "v_proj")
    reads_tokens = False
    classifies = True
    own_loss = current_code = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(
            config.over({"vocab_size": 1, "num_key_value_heads": None}),
            act="gelu",
            rotary=0,
            dropout=config.number("attention_probs_dropout_prob", 0.0, 0, 1),
        )
        image, patch = (config.pair(name, default) for name, default in (("image_size", 224), ("patch_size", 16)))
        bias, dropout = config.flag("qkv_bias", True), config.number("hidden_dropout_prob", 0.0, 0, 1)
        channels = config.integer("num_channels", default=3)
        labels = config.entries.get("id2label")
        count = len(labels) if isinstance(labels, Mapping) and labels else config.integer("num_labels", default=2)
        patches = (image[0] // patch[0]) * (image[1] // patch[1])
        self.vit = Module()
        self.vit.embeddings = ViTEmbeddings(s, channels, patches, patch, dropout)
        self.vit.layers = Stack(lambda _: ViTLayer(s, bias, patches + 1, dropout), s.windows)
        self.vit.layernorm = LayerNorm(s.hidden)
        self.classifier = Linear(s.hidden, count, True, name="head")
        self.head, self.vocabulary, self.tied = None, count, False  # type: ignore[assignment]
        self._pixels, self._hidden = channels * image[0] * image[1], s.hidden
        self._tokens, self._width = patches + 1, s.heads * s.head_dim

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Pictures and one label each."""
        return [("pictures", BATCH * (self._pixels * ITEM_BYTES[given_dtype(recipe)])), ("labels", BATCH * 8)]

    def kept_beside(self, validity: Validity) -> Size:
        """For one picture the first token's gradient is a view of that of all tokens, which `.grad` keeps whole."""
        token = self.vit.embeddings.cls_token
        if validity.exceeds("micro_batch_size", 1) or not token.trainable:
            return ZERO
        return ONE * ((self._tokens - 1) * self._hidden * ITEM_BYTES[token.dtype])

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Encoder, classifier on the first token, cross entropy."""
        hidden = self._encode(t, call, checkpointing=checkpointing)
        t.section = "logits"
        logits = self.classifier(t, self._first(t, hidden))
        t.handed.returned(logits)
        loss = plain_cross_entropy(t, logits)
        t.section = "activations"
        return loss

    def _encode(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        vit = self.vit
        pixels = Tensor(None, BATCH * self._pixels, given_dtype(call.recipe), self._pixels)  # booked with the batch
        held = vit.embeddings.patch_embeddings.projection.weight.dtype
        pixels = ops.cast(t, pixels, held, "pictures in the weights' dtype")
        embeddings = vit.embeddings(t, pixels, call)
        t.ledger.mark("embeddings")
        hidden = walk_stack(t, "vit.layers", vit.layers.layers, embeddings, call, checkpointing=checkpointing)
        hidden = vit.layernorm(t, hidden)
        return hidden

    def _first(self, t: Tape, hidden: Tensor) -> Tensor:
        """The first token of every picture: a view, whose gradient fills a zeroed tensor."""
        out = Tensor(hidden.storage, BATCH * self._hidden, hidden.dtype, self._hidden)
        whole = (hidden.numel, hidden.dtype, hidden.width)
        t.record(
            "first token", [out], [hidden], [], lambda g: t.new(*whole, "gradient: first token alone", "temporaries")
        )
        return out

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """The convolution sees the patches, the classifier one token."""
        if name.endswith("projection"):
            return 1 - 1 / self._tokens
        return 1 / self._tokens if name == "classifier" else 1.0

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]]:
        """Every token sees all of its picture."""
        return [(self._width, float(self._tokens))] * len(self.vit.layers)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What a sequence is here."""
        return [*super().assumptions(recipe), FIXED_SIZE]

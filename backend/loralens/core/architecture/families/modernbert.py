"""ModernBERT with its masked-language-model head: rotary positions, gated MLPs, and two local layers after each global one.

Source: transformers 5.23, models/modernbert/modeling_modernbert.py (`ModernBertForMaskedLM`).
"""

from __future__ import annotations

from collections.abc import Callable

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import Attention, LayerNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import Root, hold_embeddings, padding_mask, position_ids
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.heads import (
    EMBEDDING,
    REWARD,
    SEQUENCE_CLASSIFICATION,
    Head,
    attach,
    first_token,
    mean_of_tokens,
    output_layer,
)
from loralens.core.architecture.loss import cross_entropy
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.rotary import rotate_twice
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE_SQUARED, TOKENS, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape


class ModernAttention(Module):
    """Query, key and value out of one matrix, turned in float32."""

    def __init__(self, s: Shape, window: int | None, bias: bool) -> None:
        self.Wqkv = Linear(s.hidden, 3 * s.hidden, bias, name="attention query, key and value")
        self.Wo = Linear(s.hidden, s.hidden, bias, name="attention output projection")
        self._s, self._kind = s, "sliding" if window else "full"

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s = self._s
        parts = ops.split(t, self.Wqkv(t, x), [s.hidden] * 3, "attention: q, k, v")
        q, k, v = (part.view(s.head_dim) for part in parts)
        parts.clear()
        tables = call.shared[f"rotary, {self._kind}"]
        q, k = rotate_twice(t, q, tables, "attention query"), rotate_twice(t, k, tables, "attention key")
        q, k = (
            ops.cast(t, q, v.dtype, "attention query, cast back"),
            ops.cast(t, k, v.dtype, "attention key, cast back"),
        )
        if call.attention == "eager" and call.validity.exceeds("micro_batch_size", 1):
            # heads of several samples cannot be viewed as one batch: the product copies the slice of the fused result
            v = ops.copy(t, v, "attention value, by head")
        kernel = Attention(s.heads, s.heads, s.head_dim, s.head_dim, call.attention, s.attention_dropout, causal=False)
        out = kernel(t, q, k, v, call.masks[self._kind])
        return ops.dropout(t, self.Wo(t, out.view(s.hidden)), s.attention_dropout, "attention: dropout")


class ModernMLP(Module):
    """`Wo(drop(act(input) * gate))`, both halves out of one matrix."""

    def __init__(self, s: Shape, bias: bool, dropout: float) -> None:
        self.Wi = Linear(s.hidden, 2 * s.intermediate, bias, name="mlp input and gate")
        self.Wo = Linear(s.intermediate, s.hidden, bias, name="mlp down")
        self._s, self._dropout = s, dropout

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        first, gate = ops.split(t, self.Wi(t, x), [self._s.intermediate] * 2, "mlp: input and gate")
        product = ops.mul(t, activation(t, first, self._s.act, "mlp: activated input"), gate, "mlp: product")
        out: Tensor = self.Wo(t, ops.dropout(t, product, self._dropout, "mlp: dropout"))
        return out


class ModernLayer(Module):
    """Pre-norm attention and MLP; the first layer has no norm before its attention."""

    def __init__(self, s: Shape, attention: ModernAttention, mlp: ModernMLP, norm_bias: bool, *, first: bool) -> None:
        if not first:
            self.attn_norm = LayerNorm(s.hidden, norm_bias)
        self.attn = attention
        self.mlp_norm = LayerNorm(s.hidden, norm_bias)
        self.mlp = mlp
        self._first = first

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        attended = self.attn(t, hidden if self._first else self.attn_norm(t, hidden), call)
        hidden = ops.add(t, hidden, attended, "residual stream after attention")
        return ops.add(t, hidden, self.mlp(t, self.mlp_norm(t, hidden)), "residual stream after the layer")


class ModernTransform(Module):
    """Dense, activation, norm, on every token or on what `pooling` makes of them."""

    def __init__(
        self, dense: Linear, norm: LayerNorm, act: str, pooling: Callable[[Tape, Tensor], Tensor] | None
    ) -> None:
        self.dense, self.norm, self._act, self._pooling = dense, norm, act, pooling

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (rows or samples, hidden)."""
        x = self._pooling(t, hidden) if self._pooling else hidden
        out: Tensor = self.norm(t, activation(t, self.dense(t, x), self._act, "head: activated"))
        return out


class ModernBert(Root):
    """The masked language model."""

    default_targets = ("Wqkv",)
    own_loss = True  # not the causal loss, of which a recipe can choose a kind

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, act="gelu")
        config.refuse("sparse_prediction", "prediction of masked tokens alone")
        local = config.integer("local_attention", default=128, high=2**31)
        every = config.integer("global_attn_every_n_layers", default=3, high=MAX_LAYERS)
        default = tuple(local if index % every else None for index in range(s.layers))
        self._s = s = s.with_windows(by_layer_types(config, s.layers, default, local))
        bias, mlp_bias, norm_bias = (config.flag(f"{name}_bias", False) for name in ("attention", "mlp", "norm"))
        dropout, self._dropout = config.number("mlp_dropout", 0.0, 0, 1), config.number("embedding_dropout", 0.0, 0, 1)
        self._local = local // 2

        def layer(kind: tuple[bool, int | None]) -> ModernLayer:
            attention = ModernAttention(s, kind[1], bias)
            return ModernLayer(s, attention, ModernMLP(s, mlp_bias, dropout), norm_bias, first=kind[0])

        self.model = Module()
        self.model.embeddings = embeddings = Module()
        embeddings.tok_embeddings = Embedding(s.vocabulary, s.hidden)
        embeddings.norm = LayerNorm(s.hidden, norm_bias)
        kinds = [(index == 0, window) for index, window in enumerate(s.windows)]
        self.model.layers = Stack(layer, kinds)
        self.model.final_norm = LayerNorm(s.hidden, norm_bias)
        dense = Module()
        dense.dense = Linear(s.hidden, s.hidden, config.flag("classifier_bias", False), name="head: transform")
        dense.norm = LayerNorm(s.hidden, norm_bias)
        self._head_act = known(config.text("classifier_activation", "gelu"), "config.classifier_activation")
        self.prediction_head = dense  # called `head` there
        self.decoder = self.head = Linear(s.hidden, s.vocabulary, config.flag("decoder_bias", True), name="head")
        if s.tied:
            self.decoder.weight = embeddings.tok_embeddings.weight
        self.vocabulary, self.tied = s.vocabulary, s.tied
        self.buffer_bytes = s.rotated // 2 * 4 * 2 * len(set(s.windows))

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Encoder, head, and cross entropy in float32."""
        hidden = self.embed(t, call)
        t.ledger.mark("embeddings")
        hidden = walk_stack(t, "model.layers", self.model.layers.layers, hidden, call, checkpointing=checkpointing)
        hidden = self.model.final_norm(t, hidden)
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
        labels = t.new(TOKENS, "int64", 1, "labels")
        t.handed.returned(logits)
        return cross_entropy(t, ops.cast(t, logits, "float32", "logits in float32"), labels)

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """The masked language model's transform, then `classifier`, on the first token or on all; or the base model."""
        transform = self.prediction_head
        del self.decoder, self.head, self.prediction_head
        if kind == EMBEDDING:
            return attach(self, "", Head(kind, None))
        single = kind in (SEQUENCE_CLASSIFICATION, REWARD)
        pooling = (
            (mean_of_tokens if config.text("classifier_pooling", "cls") == "mean" else first_token) if single else None
        )
        self.prediction_head = ModernTransform(transform.dense, transform.norm, self._head_act, pooling)
        output = output_layer(self._s.hidden, labels, bias=True)
        dropout = config.number("classifier_dropout", 0.0, 0, 1)
        return attach(self, "classifier", Head(kind, output, dropout, self.prediction_head))

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Words, normed; masks and tables for both kinds of layer."""
        parts = self.model.embeddings
        words: Tensor = parts.tok_embeddings(t, TOKENS)
        hold_embeddings(t, words, call)
        call.held.clear()
        hidden = ops.dropout(t, parts.norm(t, words), self._dropout, "embeddings: dropout")
        position_ids(t, call)
        call.masks["full"] = padding_mask(t, call)
        call.masks["sliding"] = self._local_mask(t, call)
        for window in set(self._s.windows):
            kind = "sliding" if window else "full"
            call.shared[f"rotary, {kind}"] = Rotary(self._s.rotated).tables(t, hidden)
        return hidden

    def _local_mask(self, t: Tape, call: Call) -> Tensor | None:
        """Which tokens are near: needed where the sequence is longer than the window."""
        if call.attention == "flash":
            return None
        if call.attention == "eager":
            return t.new(TOKENS_BY_SEQUENCE, call.recipe.weights_dtype, 1, "attention mask")
        near = not call.validity.exceeds("sequence_length", self._local)
        if near and not call.recipe.padded:
            return None
        return t.new(TOKENS_BY_SEQUENCE if call.recipe.padded else SEQUENCE_SQUARED, "bool", 1, "attention mask")

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """Dense, activation, norm, output embedding."""
        parts = self.prediction_head
        x = activation(t, parts.dense(t, hidden), self._head_act, "head: activated")
        out: Tensor = self.decoder(t, parts.norm(t, x))
        return out

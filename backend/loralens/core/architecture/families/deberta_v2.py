"""DeBERTa-v2 and v3 with the masked-language-model head: BERT whose scores also hold every token's product with distances.

Source: transformers 5.23, models/deberta_v2/modeling_deberta_v2.py (`DebertaV2ForMaskedLM`).
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import hold_embeddings
from loralens.core.architecture.config import Config
from loralens.core.architecture.families.bert import Bert, BertIntermediate, BertOutput
from loralens.core.architecture.heads import (
    EMBEDDING,
    REWARD,
    SEQUENCE_CLASSIFICATION,
    Head,
    attach,
    first_token,
    output_layer,
)
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.shape import Shape
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.folding import masked
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import gather
from loralens.core.tape.size import BATCH, SEQUENCE, SEQUENCE_SQUARED, TOKENS, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape

DISTANCES = "distances"


class Distances:
    """What the scores hold of distances: the sides that have a product with them, and how many there are."""

    def __init__(self, config: Config, positions: int) -> None:
        given = config.entries.get("pos_att_type") or []
        words = [word.strip() for word in given.lower().split("|")] if isinstance(given, str) else given
        if not isinstance(words, (list, tuple)):
            raise InvalidInput(
                f"config.pos_att_type must be a list, got {given!r:.40}",
                field="config.pos_att_type",
                hint='c2p and p2c are known: ["c2p", "p2c"]',
            )
        self.used = config.flag("relative_attention", False)
        self.content, self.position = "c2p" in words, "p2c" in words
        found = config.number("max_relative_positions", -1, -1, 1 << 24)
        self.number = 2 * int(found if found >= 1 else positions)
        buckets = int(config.number("position_buckets", -1, -1, 1 << 24))
        if buckets > 0:
            self.number = 2 * buckets
        self.shared = config.flag("share_att_key", False)
        self.normed = "layer_norm" in str(config.entries.get("norm_rel_ebd") or "none").lower()


class HiddenStates:
    """What went into every layer, until the encoder's forward is over; a second run of a layer adds nothing."""

    def __init__(self) -> None:
        self._held: list[tuple[Tensor, int]] = []
        self._over = False

    def hold(self, t: Tape, hidden: Tensor) -> None:
        """A layer's input."""
        if not self._over:
            self._held.append((hidden.view(), t.layer))

    def end(self, t: Tape) -> None:
        """The encoder's forward is over."""
        self._over = True
        t.end_in_layers(self._held)


class DebertaSelfAttention(Module):
    """`self.`: eager attention; what is multiplied is laid out by head first."""

    def __init__(self, s: Shape, distances: Distances, dropout: float) -> None:
        for name in ("query", "key", "value"):
            setattr(self, f"{name}_proj", Linear(s.hidden, s.hidden, True, name=f"attention {name}"))
        if distances.used and not distances.shared:
            if distances.content:
                self.pos_key_proj = Linear(s.hidden, s.hidden, True, name="attention key of distances")
            if distances.position:
                self.pos_query_proj = Linear(s.hidden, s.hidden, True, name="attention query of distances")
        self._s, self._distances, self._dropout = s, distances, dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        q, k, v = (self._by_head(t, getattr(self, f"{name}_proj")(t, x)) for name in ("query", "key", "value"))
        pairs = TOKENS_BY_SEQUENCE * s.heads
        flops = pairs * (2 * width)
        scaled = ops.scale(t, k, "attention: scaled key")
        scores = ops.matmul(t, q, scaled, pairs, 1, "attention: scores", flops=flops)
        t.end(scaled)
        if self._distances.used:
            table = ops.dropout(t, call.shared[DISTANCES], self._dropout, "distances: dropout")
            biases = self._biases(t, q, k, table)
            if biases is not None:
                scores = t.replace(scores, ops.add(t, scores, biases, "attention: scores with distances"))
        seen = t.local(t.new(TOKENS_BY_SEQUENCE, "bool", 1, "attention: mask"))
        hidden = t.new(seen.numel, "bool", 1, "attention: inverted mask")
        scores = t.replace(scores, masked(t, scores, hidden, "attention: masked scores"))
        weights = ops.softmax(t, scores, "float32" if t.autocast else None, "attention: softmax")
        weights = ops.dropout(t, weights, s.attention_dropout, "attention: dropout")
        out = ops.matmul(t, weights, v, TOKENS * s.hidden, width, "attention: output by head", flops=flops)
        return t.replace(out, ops.copy(t, out, "attention: output", width=s.hidden))

    def _by_head(self, t: Tape, x: Tensor) -> Tensor:
        return t.replace(x, ops.copy(t, x, "attention: input by head", width=self._s.head_dim))

    def _of_distances(self, t: Tape, table: Tensor, name: str) -> Tensor:
        """A projection of the distances' vectors, repeated for every sample."""
        own = getattr(self, f"{name}_proj" if self._distances.shared else f"pos_{name}_proj")
        found = self._by_head(t, own(t, table))
        size = BATCH * (self._distances.number * self._s.hidden)
        return t.replace(found, ops.copy(t, found, f"attention: {name} of distances", size, self._s.head_dim))

    def _biases(self, t: Tape, q: Tensor, k: Tensor, table: Tensor) -> Tensor | None:
        """The products of content with distances, at every pair's distance."""
        d, score = self._distances, None
        key = query = None
        kept: list[Tensor] = []  # local variables until the bias is there
        if d.shared:
            query, key = self._of_distances(t, table, "query"), self._of_distances(t, table, "key")
        else:
            key = self._of_distances(t, table, "key") if d.content else None
            query = self._of_distances(t, table, "query") if d.position else None
        if d.content and key is not None:
            chosen = self._chosen(t, q, key, "distances of the query", kept)
            score = t.replace(chosen, ops.shift(t, chosen, "attention: sum of distances"))
        if d.position and query is not None:
            chosen = self._chosen(t, k, query, "distances of the key", kept)
            if score is None:
                return t.replace(chosen, ops.shift(t, chosen, "attention: sum of distances"))
            score = ops.add_in_place(t, score, chosen)
        return score

    def _chosen(self, t: Tape, content: Tensor, distances: Tensor, label: str, kept: list[Tensor]) -> Tensor:
        s, number = self._s, self._distances.number
        size = TOKENS * (s.heads * number)
        products = ops.matmul(t, content, distances, size, number, f"attention: {label}", flops=size * (2 * s.head_dim))
        index = t.new(SEQUENCE_SQUARED, "int64", 1, f"attention: places of {label}")
        spread = Tensor(index.storage, TOKENS_BY_SEQUENCE * s.heads, "int64", 1)
        chosen = gather(t, products, spread, f"attention: {label}, chosen")
        kept += [index, chosen]
        return ops.scale(t, chosen, f"attention: {label}, scaled")


class DebertaAttention(Module):
    """Attention and what follows it."""

    def __init__(self, s: Shape, distances: Distances, dropout: float) -> None:
        self.self = DebertaSelfAttention(s, distances, dropout)
        self.output = BertOutput(s.hidden, s.hidden, dropout, "attention output projection")

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        attended: Tensor = self.self(t, x, call)
        out: Tensor = self.output(t, attended, x)
        return out


class DebertaLayer(Module):
    """Post-norm attention and MLP."""

    def __init__(self, s: Shape, distances: Distances, dropout: float) -> None:
        self.attention = DebertaAttention(s, distances, dropout)
        self.intermediate = BertIntermediate(s)
        self.output = BertOutput(s.intermediate, s.hidden, dropout, "mlp down")

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        call.beside.hold(t, hidden)
        attended = self.attention(t, hidden, call)
        out: Tensor = self.output(t, self.intermediate(t, attended), attended)
        return out


class DebertaEmbeddings(Module):
    """Words, and positions and segments where the config has them; normed, and set to zero where samples are padded."""

    def __init__(self, s: Shape, positions: int, types: int) -> None:
        self.word_embeddings = Embedding(s.vocabulary, s.hidden)
        if positions:
            self.position_embeddings = Embedding(positions, s.hidden)
        if types:
            self.token_type_embeddings = Embedding(types, s.hidden)
        self.LayerNorm = LayerNorm(s.hidden)
        self._positions, self._types = positions, types

    def forward(self, t: Tape, call: Call, dropout: float) -> Tensor:
        """Shapes: to (rows, hidden)."""
        words: Tensor = self.word_embeddings(t, TOKENS)
        hold_embeddings(t, words, call)
        hidden = words
        if self._positions:
            placed = t.local(self.position_embeddings(t, SEQUENCE, "position embeddings"))
            hidden = ops.add(t, hidden, placed, "embeddings: words and positions")
        else:
            t.local(t.new(words.numel, words.dtype, words.width, "embeddings: no positions"))
        if self._types:
            segments = t.local(self.token_type_embeddings(t, TOKENS, "segment embeddings", call.shared["segment ids"]))
            hidden = ops.add(t, hidden, segments, "embeddings")
        hidden = self.LayerNorm(t, hidden)
        mask = call.shared["samples"]
        if mask.dtype != hidden.dtype:
            mask = t.local(t.new(TOKENS, hidden.dtype, 1, "embeddings: mask"))
        hidden = ops.mul(t, hidden, mask, "embeddings: masked")
        call.held.clear()
        return ops.dropout(t, hidden, dropout, "embeddings: dropout")


class ContextPooler(Module):
    """The first token's vector through a layer of its own."""

    def __init__(self, hidden: int, dropout: float, act: str) -> None:
        self.dense = Linear(hidden, hidden, True, name="pooler")
        self._dropout, self._act = dropout, act

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (samples, hidden)."""
        x = ops.dropout(t, first_token(t, hidden), self._dropout, "pooler: dropout")
        return activation(t, self.dense(t, x), self._act, "pooler: activated")


class DebertaV2(Bert):
    """The masked language model."""

    inner = "deberta"
    default_targets: tuple[str, ...] | str = ("query_proj", "value_proj")

    def __init__(self, config: Config) -> None:
        config = config.over({}, {"hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
                                  "intermediate_size": 6144})  # fmt: skip
        super().__init__(config.over({"type_vocab_size": 1}))  # none is as good: its embeddings are not BERT's
        s, parts = self._s, self.bert
        del self.bert
        for name, usual in (("embedding_size", s.hidden), ("attention_head_size", s.hidden // s.heads)):
            if config.integer(name, default=usual) != usual:
                raise UnsupportedArchitecture(
                    f"config.{name} other than {usual} is not modelled", field=f"config.{name}"
                )
        if config.integer("conv_kernel_size", default=0, low=0):
            raise UnsupportedArchitecture(
                "a convolution beside the first layer (config.conv_kernel_size) is not modelled",
                field="config.conv_kernel_size",
            )
        if not config.flag("legacy", True):
            raise UnsupportedArchitecture(
                "DeBERTa's head of its own (config.legacy false) is not modelled", field="config.legacy"
            )
        positions = config.integer("max_position_embeddings", default=512)
        self.distances = distances = Distances(config, positions)
        biased = config.flag("position_biased_input", True)
        types = config.integer("type_vocab_size", default=0, low=0)
        parts.embeddings = DebertaEmbeddings(s, positions if biased else 0, types)
        parts.encoder.layer = Stack(lambda _: DebertaLayer(s, distances, self._dropout), s.windows)
        if distances.used:
            parts.encoder.rel_embeddings = Embedding(distances.number, s.hidden)
        if distances.normed:
            parts.encoder.LayerNorm = LayerNorm(s.hidden)
        self.deberta = parts
        self.buffer_bytes = positions * 8
        self.learned_positions = positions if biased else None
        if s.tied:
            self.cls.predictions.decoder.weight = parts.embeddings.word_embeddings.weight

    def embedded(self, t: Tape, call: Call) -> Tensor:
        """And what the layers are handed."""
        mask = Tensor(None, TOKENS, "int64", 1)  # the batch's own
        if not call.recipe.padded:
            mask = t.new(TOKENS, "float32", 1, "mask of ones")
        types = t.new(TOKENS, "int64", 1, "segment ids")
        call.shared["samples"], call.shared["segment ids"] = mask, types
        hidden = super().embedded(t, call)
        call.shared.clear()
        call.held += [mask, types]  # local variables of the model's forward
        call.shared["pairs"] = t.new(TOKENS_BY_SEQUENCE, mask.dtype, 1, "attention mask")
        if self.distances.used:
            call.shared["positions"] = t.new(SEQUENCE_SQUARED, "int64", 1, "distances of positions")
            encoder = self.deberta.encoder
            table = t.parameter(encoder.rel_embeddings.weight)
            call.shared[DISTANCES] = encoder.LayerNorm(t, table) if self.distances.normed else table
        return hidden

    def mask(self, t: Tape, call: Call) -> None:
        """None of BERT's: layers are handed one for every pair."""

    def run_layers(
        self, t: Tape, name: str, layers: list[Module], hidden: Tensor, call: Call, *, checkpointing: bool
    ) -> Tensor:
        """The encoder holds what went into every layer until its forward is over."""
        call.beside = states = HiddenStates()
        hidden = super().run_layers(t, name, layers, hidden, call, checkpointing=checkpointing)
        states.end(t)
        return hidden

    def attention_for(self, recipe: Recipe) -> str:
        """There is no other."""
        return "eager"

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """The first token's vector through a pooler of its own, or `classifier` on every token."""
        del self.cls
        if kind == EMBEDDING:
            return attach(self, "", Head(kind, None))
        if kind not in (SEQUENCE_CLASSIFICATION, REWARD):
            return self._attach(kind, labels, config, pooler=False)
        s = self._s
        pooler = ContextPooler(
            s.hidden, config.number("pooler_dropout", 0.0, 0, 1), config.text("pooler_hidden_act", "gelu")
        )
        output = output_layer(s.hidden, labels, bias=True)
        dropout = config.number("cls_dropout", self._dropout, 0, 1)
        attach(self, "classifier", Head(kind, output, dropout, pooler))
        self.pooler = pooler
        return None

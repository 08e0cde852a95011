"""DeBERTa with its masked-language-model head: query, key and value in one matrix, a layer norm written out.

It trains in float32 without autocast alone: two biases are made in float32 whatever the rest is held in, so that products with them
meet 16 bits elsewhere, and under autocast the mask's number, float32's lowest, does not fit into 16-bit scores.

Source: transformers 5.23, models/deberta/modeling_deberta.py (`DebertaForMaskedLM`).
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.families.bert import BertOutput
from loralens.core.architecture.families.deberta_v2 import (
    DISTANCES,
    DebertaLayer,
    DebertaSelfAttention,
    DebertaV2,
    Distances,
)
from loralens.core.architecture.module import Linear, Stack
from loralens.core.architecture.shape import Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import derivatives, ops
from loralens.core.tape.folding import masked
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import divide_by, gather
from loralens.core.tape.size import BATCH, ONE, SEQUENCE_SQUARED, TOKENS, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape


class DebertaNorm(LayerNorm):
    """A layer norm written out, in float32."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        assert self.weight is not None and self.bias is not None
        mean = t.local(ops.mean(t, x, "norm: mean"))
        difference = ops.sub(t, x, mean, "norm: input - mean")
        squared = ops.power(t, difference, "norm: squares")
        t.end(difference)
        variance = t.local(ops.mean(t, squared, "norm: variance"))
        t.end(squared)
        difference = ops.sub(t, x, mean, "norm: input - mean")
        shifted = ops.shift(t, variance, "norm: variance + eps")
        deviation = derivatives.sqrt(t, shifted, "norm: deviation")
        t.end(shifted)
        normed = t.local(divide_by(t, difference, deviation, "norm: normalized"))
        t.end(difference, deviation)
        weighted = ops.mul(t, normed, t.parameter(self.weight), "norm: weighted")
        return t.replace(weighted, ops.add(t, weighted, t.parameter(self.bias), "norm: output"))


class DebertaOutput(BertOutput):
    """Linear, dropout, and that norm over the sum with the input."""

    def __init__(self, inputs: int, hidden: int, dropout: float, name: str) -> None:
        super().__init__(inputs, hidden, dropout, name)
        self.LayerNorm = DebertaNorm(hidden)


class DisentangledSelfAttention(DebertaSelfAttention):
    """`self.`: query, key and value side by side in every head; biases for query and value."""

    def __init__(self, s: Shape, distances: Distances, dropout: float) -> None:
        self.in_proj = Linear(s.hidden, 3 * s.hidden, name="attention query, key and value")
        self.q_bias = Parameter((s.hidden,))
        self.v_bias = Parameter((s.hidden,))
        self.q_bias.held_in = self.v_bias.held_in = "float32"
        if distances.used:
            if distances.content:
                self.pos_proj = Linear(s.hidden, s.hidden, name="attention key of distances")
            if distances.position:
                self.pos_q_proj = Linear(s.hidden, s.hidden, True, name="attention query of distances")
        self._s, self._distances, self._dropout = s, distances, dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        joined = t.local(self.in_proj(t, x))
        q, k, v = ops.split(t, joined.view(3 * width), [width] * 3, "attention: query, key and value")
        q = ops.add(t, q, t.parameter(self.q_bias), "attention: query")
        v = ops.add(t, v, t.parameter(self.v_bias), "attention: value")
        q = t.replace(q, ops.scale(t, q, "attention: scaled query"))
        pairs = TOKENS_BY_SEQUENCE * s.heads
        flops = pairs * (2 * width)
        scores = ops.matmul(t, self._by_head(t, q), self._by_head(t, k), pairs, 1, "attention: scores", flops=flops)
        if self._distances.used:
            table = ops.dropout(t, call.shared[DISTANCES], self._dropout, "distances: dropout")
            biases = self._biases(t, q, k, table)
            if biases is not None:
                scores = t.replace(scores, ops.add(t, scores, biases, "attention: scores with distances"))
        seen = t.local(t.new(TOKENS_BY_SEQUENCE, "bool", 1, "attention: mask"))
        hidden = t.new(seen.numel, "bool", 1, "attention: inverted mask")
        scores = t.replace(scores, masked(t, scores, hidden, "attention: masked scores"))
        weights = ops.softmax(t, scores, None, "attention: softmax")
        weights = ops.dropout(t, weights, s.attention_dropout, "attention: dropout")
        out = ops.matmul(
            t, weights, self._by_head(t, v), TOKENS * s.hidden, width, "attention: output by head", flops=flops
        )
        return t.replace(out, ops.copy(t, out, "attention: output", width=s.hidden))

    def _by_head(self, t: Tape, x: Tensor) -> Tensor:
        """As a batched product needs it: with more samples than one, what lies by token is copied to lie by head."""
        return ops.copy(t, x, "attention: input by head") if t.validity.exceeds("micro_batch_size", 1) else x

    def _biases(self, t: Tape, q: Tensor, k: Tensor, table: Tensor) -> Tensor | None:
        """The products of content with distances, at every pair's distance; only those within the sequence have one."""
        d, score, number, mark = self._distances, None, self._distances.number, len(t.locals)
        if not t.validity.exceeds("sequence_length", number // 2 - 1):
            number, width = 2 * t.validity.pinned("sequence_length"), self._s.hidden
            table = ops.cut(t, table, "distances: within the sequence", numel=ONE * (number * width))
        if d.content:
            key = t.local(self.pos_proj(t, table))
            chosen = t.local(self._picked(t, q, key, number, "distances of the query"))
            score = ops.shift(t, chosen, "attention: sum of distances")
        if d.position:
            query = self.pos_q_proj(t, table)
            query = t.local(t.replace(query, ops.scale(t, query, "attention: scaled query of distances")))
            chosen = t.local(self._picked(t, k, query, number, "distances of the key"))
            score = (
                ops.shift(t, chosen, "attention: sum of distances")
                if score is None
                else ops.add_in_place(t, score, chosen)
            )
        t.leave(mark)
        return score

    def _picked(self, t: Tape, content: Tensor, distances: Tensor, number: int, label: str) -> Tensor:
        """The products, of which every pair takes one."""
        s = self._s
        places = t.new(SEQUENCE_SQUARED, "int64", 1, f"attention: places of {label}")
        index = t.local(t.new(SEQUENCE_SQUARED, "int64", 1, f"attention: places of {label}"))
        t.end(places)
        if t.validity.exceeds("micro_batch_size", 1):
            every = BATCH * (number * s.hidden)
            distances = ops.copy(t, distances, "attention: distances for every sample", every, s.head_dim)
        size = TOKENS * (s.heads * number)
        flops = size * (2 * s.head_dim)
        products = ops.matmul(t, self._by_head(t, content), distances, size, number, f"attention: {label}", flops=flops)
        spread = Tensor(index.storage, TOKENS_BY_SEQUENCE * s.heads, "int64", 1)
        return gather(t, products, spread, f"attention: {label}, chosen")


class DebertaV1Layer(DebertaLayer):
    """Post-norm attention and MLP."""

    def __init__(self, s: Shape, distances: Distances, dropout: float) -> None:
        super().__init__(s, distances, dropout)
        self.attention.self = DisentangledSelfAttention(s, distances, dropout)
        self.attention.output = DebertaOutput(s.hidden, s.hidden, dropout, "attention output projection")
        self.output = DebertaOutput(s.intermediate, s.hidden, dropout, "mlp down")


class Deberta(DebertaV2):
    """The masked language model."""

    default_targets = ("in_proj",)

    def __init__(self, config: Config) -> None:
        defaults = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
        unused = {"share_att_key": False, "norm_rel_ebd": "none", "position_buckets": -1, "conv_kernel_size": 0}
        config = config.over({**unused, "attention_head_size": None}, defaults)
        config.refuse("talking_head", "attention whose heads are mixed")
        super().__init__(config)
        s, distances = self._s, self.distances
        self.deberta.embeddings.LayerNorm = DebertaNorm(s.hidden)
        self.deberta.encoder.layer = Stack(lambda _: DebertaV1Layer(s, distances, self._dropout), s.windows)

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Refused where transformers' code fails, which is everywhere but in float32."""
        held = self.deberta.embeddings.word_embeddings.weight.dtype
        if call.recipe.autocast is not None or held != "float32":
            raise UnsupportedArchitecture(
                "DeBERTa (the first) fails in 16 bits in transformers: its query is float32, and so is the number that it masks by",
                field="autocast" if call.recipe.autocast is not None else "weights_dtype",
                hint="set weights_dtype to float32 and autocast to null",
            )
        return super().run(t, call, checkpointing=checkpointing)

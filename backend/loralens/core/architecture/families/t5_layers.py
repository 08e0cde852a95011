"""The layers of T5: attention with a learned bias for every distance, gated or plain feed-forward.

Source: transformers 5.23, models/t5/modeling_t5.py (`T5Block` and its parts).
"""

from __future__ import annotations

from dataclasses import dataclass

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import Attention, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.architecture.shape import MAX_HEADS
from loralens.core.question.precision import SIXTEEN_BIT
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.position_bias import PositionBias
from loralens.core.tape.size import SEQUENCE, SEQUENCE_SQUARED
from loralens.core.tape.tape import Tape


@dataclass(frozen=True, slots=True)
class T5Widths:
    """What the config says of every layer."""

    hidden: int
    heads: int
    width: int  # of a head
    intermediate: int
    buckets: int
    dropout: float
    act: str
    gated: bool

    @staticmethod
    def read(config: Config) -> T5Widths:
        """Read a config, with the family's defaults."""
        gate, _, act = config.text("feed_forward_proj", "relu").rpartition("-")
        return T5Widths(
            config.integer("d_model", "hidden_size"),
            config.integer("num_heads", "num_attention_heads", high=MAX_HEADS),
            config.integer("d_kv", default=64, high=65_536),
            config.integer("d_ff"),
            config.integer("relative_attention_num_buckets", default=32),
            config.number("dropout_rate", 0.1, 0, 1),
            known("gelu_new" if (gate, act) == ("gated", "gelu") else act, "config.feed_forward_proj"),
            gate == "gated",
        )


class T5Norm(RMSNorm):
    """Root-mean-square norm whose input enters the product in its own dtype."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        squared = ops.power(t, ops.cast(t, x, "float32", "norm: input in float32"), "norm: squares")
        variance = ops.mean(t, squared, "norm: mean")
        t.end(squared)
        shifted = ops.shift(t, variance, "norm: variance + eps")
        reciprocal = ops.rsqrt(t, shifted, "norm: 1/rms")
        t.end(shifted)
        x = ops.mul(t, x, reciprocal, "norm: normalized in float32")
        t.end(reciprocal)
        if self.weight.dtype in SIXTEEN_BIT:
            x = ops.cast(t, x, self.weight.dtype, "norm: normalized")
        return ops.mul(t, x, t.parameter(self.weight), "norm: output")


class T5Attention(Module):
    """q, k, v, o without bias; the first layer of a stack holds the position biases."""

    def __init__(self, w: T5Widths, *, biased: bool, causal: bool) -> None:
        inner = w.heads * w.width
        self.q = Linear(w.hidden, inner, name="attention query")
        self.k = Linear(w.hidden, inner, name="attention key")
        self.v = Linear(w.hidden, inner, name="attention value")
        self.o = Linear(inner, w.hidden, name="attention output projection")
        self.relative_attention_bias = Embedding(w.buckets, w.heads) if biased else None
        self._w, self._causal = w, causal

    def forward(
        self, t: Tape, x: Tensor, call: Call, mask: Tensor | None, bias: PositionBias | None, seen: Tensor
    ) -> tuple[Tensor, PositionBias]:
        """Shapes: x (rows, hidden) to the same; `seen` is what key and value are made of. Returns the biases too."""
        w = self._w
        q, k, v = self.q(t, x).view(w.width), self.k(t, seen).view(w.width), self.v(t, seen).view(w.width)
        if bias is None:
            bias = self._learned(t) if self.relative_attention_bias else self._zeros(t, q.dtype, call)
        kernel = Attention(
            w.heads, w.heads, w.width, w.width, call.attention, w.dropout, softmax_dtype=None, returns_weights=True
        )
        out = kernel.with_bias(t, q, k, v, mask, bias, call.validity)
        return self.o(t, out.view(w.heads * w.width)), bias

    def _learned(self, t: Tape) -> PositionBias:
        """A row of the table for every pair of positions."""
        query = t.new(SEQUENCE, "int64", 1, "position biases: queries")
        key = t.new(SEQUENCE, "int64", 1, "position biases: keys")
        distance = t.new(SEQUENCE_SQUARED, "int64", 1, "position biases: distances")
        buckets = self.buckets(t)
        assert self.relative_attention_bias is not None
        table = self.relative_attention_bias(t, SEQUENCE_SQUARED, "position biases", buckets)
        t.end(query, key, distance)
        return PositionBias(table, self._w.heads, SEQUENCE, SEQUENCE, True, self._causal)

    @staticmethod
    def buckets(t: Tape) -> Tensor:
        """A bucket for every distance: small ones exactly, large ones by their logarithm."""

        def step(dtype: str = "int64") -> Tensor:
            return t.new(SEQUENCE_SQUARED, dtype, 1, "position biases: buckets")

        side, size, small = step(), step(), step("bool")
        large = step("float32")
        for _ in range(4):
            large = t.replace(large, step("float32"))
        whole, limit = step(), step()
        t.end(large)
        whole = t.replace(whole, step())
        chosen = step()
        t.end(whole, limit, small, size, side)
        return chosen

    def _zeros(self, t: Tape, dtype: str, call: Call) -> PositionBias:
        """Cross-attention knows no distance; under checkpointing the zeros are made to want a gradient."""
        zeros = t.new(SEQUENCE_SQUARED * self._w.heads, dtype, 1, "cross-attention: no position biases")
        if call.recipe.gradient_checkpointing:
            t.require_grad(zeros)
        return PositionBias(zeros, self._w.heads, SEQUENCE, SEQUENCE, False, False)


class Branch(Module):
    """One residual branch of attention with its norm."""

    def __init__(self, name: str, attention: T5Attention, w: T5Widths) -> None:
        setattr(self, name, attention)
        self.layer_norm = T5Norm(w.hidden)
        self._name, self._dropout = name, w.dropout

    def forward(
        self,
        t: Tape,
        hidden: Tensor,
        call: Call,
        mask: Tensor | None,
        bias: PositionBias | None,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, PositionBias]:
        """Shapes: hidden (rows, hidden) to the same; returns the biases that were used."""
        normed = self.layer_norm(t, hidden)
        out, bias = getattr(self, self._name)(t, normed, call, mask, bias, normed if seen is None else seen)
        return ops.add(t, hidden, ops.dropout(t, out, self._dropout, "residual dropout"), "residual stream"), bias


class FeedForward(Module):
    """`wi`, or gate and up, and `wo`."""

    def __init__(self, w: T5Widths) -> None:
        for name in ("wi_0", "wi_1") if w.gated else ("wi",):
            setattr(self, name, Linear(w.hidden, w.intermediate, name="mlp gate" if name == "wi_0" else "mlp up"))
        self.wo = Linear(w.intermediate, w.hidden, name="mlp down")
        self._w = w

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        w = self._w
        if w.gated:
            gate = t.local(activation(t, self.wi_0(t, x), w.act, "mlp: activated gate"))
            up = t.local(self.wi_1(t, x))
            x = ops.mul(t, gate, up, "mlp: product")
        else:
            x = self.wi(t, x)
            x = activation(t, x, w.act, "mlp: activated")
        x = ops.dropout(t, x, w.dropout, "mlp: dropout")
        if self.wo.weight.packing is None:
            x = ops.cast(t, x, self.wo.weight.dtype, "mlp: product in the weights' dtype")
        out: Tensor = self.wo(t, x)
        return out


class FeedForwardBranch(Module):
    """The residual branch of the feed-forward layer."""

    def __init__(self, w: T5Widths) -> None:
        self.DenseReluDense = FeedForward(w)
        self.layer_norm = T5Norm(w.hidden)
        self._dropout = w.dropout

    def forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        out = self.layer_norm(t, hidden)
        out = self.DenseReluDense(t, out)
        return ops.add(t, hidden, ops.dropout(t, out, self._dropout, "residual dropout"), "residual stream")


class T5Block(Module):
    """Self-attention, cross-attention in the decoder, feed-forward."""

    def __init__(self, w: T5Widths, *, first: bool, decodes: bool) -> None:
        branches: list[Module] = [Branch("SelfAttention", T5Attention(w, biased=first, causal=decodes), w)]
        if decodes:
            branches.append(Branch("EncDecAttention", T5Attention(w, biased=False, causal=False), w))
        branches.append(FeedForwardBranch(w))
        self.layer = Module()
        for index, branch in enumerate(branches):
            setattr(self.layer, str(index), branch)
        self._branches, self._first = len(branches), first

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same. The first layer leaves its biases for the others."""
        biases = (None, None) if self._first else call.between.biases
        found = []
        for index in range(self._branches - 1):
            branch = getattr(self.layer, str(index))
            mask = call.masks["cross" if index else "full"]
            hidden, bias = branch(t, hidden, call, mask, biases[index], call.shared["encoder"] if index else None)
            weights = t.handed.take_weights()
            found.append(bias)
            hidden = clamped(t, hidden)
        if self._first:
            call.hand_on(found)
        t.local(weights)
        return clamped(t, getattr(self.layer, str(self._branches - 1))(t, hidden))


def clamped(t: Tape, x: Tensor) -> Tensor:
    """float16 is cut to its range, by bounds that are tensors."""
    if x.dtype != "float16":
        return x
    label = "residual stream, clamped"
    out = t.new(x.numel, x.dtype, x.width, label)
    numel, dtype, width = x.numel, x.dtype, x.width

    def apply(g: Tensor) -> Tensor:
        low, high = (t.new(numel, "bool", width, f"gradient: {label}: inside", "temporaries") for _ in range(2))
        gradient = t.new(numel, dtype, width, f"gradient: {label}", "temporaries")
        t.end(high, low)
        return gradient

    t.record(label, [out], [x], derivatives.CLAMP_TENSOR.kept(self=x), apply)
    return out

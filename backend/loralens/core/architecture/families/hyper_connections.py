"""Hyper-connections: a residual stream of several streams, collapsed before a block and mixed behind it.

Source: transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py (`DeepseekV4HyperConnection`, `DeepseekV4HyperHead`).
"""

from __future__ import annotations

from loralens.core.architecture.module import Module
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape import ops
from loralens.core.tape.folding import summed
from loralens.core.tape.graph import Tensor
from loralens.core.tape.iterated import iterated
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import divide_by
from loralens.core.tape.size import TOKENS, Size
from loralens.core.tape.tape import Tape


def unweighted_norm(t: Tape, x: Tensor, label: str) -> Tensor:
    """A root-mean-square norm without a weight; 1/rms is computed in float32 and cast. Shapes: any to the same."""
    squares = ops.power(t, ops.cast(t, x, "float32", f"{label}: in float32"), f"{label}: squares")
    mean = ops.mean(t, squares, f"{label}: mean")
    t.end(squares)
    mean = t.replace(mean, ops.shift(t, mean, f"{label}: mean + eps"))
    wide = ops.rsqrt(t, mean, f"{label}: 1/rms")
    t.end(mean)
    reciprocal = ops.cast(t, wide, x.dtype, f"{label}: 1/rms, cast")
    return ops.mul(t, x, reciprocal, f"{label}: normed")


def _flat(t: Tape, streams: Tensor, width: int) -> Tensor:
    """All streams of a token in one row, in float32: a view with a node of its own, where gradients meet first."""
    flat = streams.view(width)
    t.record("streams, flat", [flat], [streams], [], lambda g: g.view())
    return ops.cast(t, flat, "float32", "streams in float32")


def _held_whole(shape: tuple[int, ...]) -> Parameter:
    """A parameter that is float32 whatever the rest is held in."""
    parameter = Parameter(shape)
    parameter.held_in = "float32"
    return parameter


class HyperConnection(Module):
    """Weights that collapse, expand and mix the streams, from the streams themselves.

    Shapes: fn ((2 + n) n, n hidden), base ((2 + n) n), scale (3), for n streams.
    """

    multiplies = True

    def __init__(self, hidden: int, streams: int, iterations: int) -> None:
        width = (2 + streams) * streams
        self.fn = _held_whole((width, streams * hidden))
        self.base = _held_whole((width,))
        self.scale = _held_whole((3,))
        self._hidden, self._streams, self._iterations = hidden, streams, iterations

    def forward(self, t: Tape, streams: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes: streams (rows, n hidden) to expanding (rows, n) and mixing (rows, n n) weights, and (rows, hidden)."""
        n = self._streams
        flattened = _flat(t, streams, n * self._hidden)
        flattened = unweighted_norm(t, flattened, "streams")
        flattened = ops.linear(t, flattened, self.fn, "weights of streams")
        parts = [n, n, n * n]
        weights = ops.split(t, flattened, parts, "weights of streams: parts")
        biases = ops.split(t, t.parameter(self.base), parts, "weights of streams: biases")
        scales = ops.split(t, t.parameter(self.scale), [1, 1, 1], "weights of streams: scales")
        pre = self._squashed(t, weights[0], scales[0], biases[0])
        pre = t.replace(pre, ops.shift(t, pre, "weights of streams: collapsing"))
        post = self._squashed(t, weights[1], scales[1], biases[1])
        post = t.replace(post, ops.scale(t, post, "weights of streams: expanding"))
        comb = self._mixing(t, weights[2], scales[2], biases[2])
        return post, comb, collapsed(t, streams, pre, self._hidden)

    @staticmethod
    def _scaled(t: Tape, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        # the scale is one number, which widens nothing
        number = Tensor(scale.storage, scale.numel, weight.dtype, 1, scale.node)
        number.output = scale.output
        scaled = ops.mul(t, weight, number, "weights of streams: scaled")
        return t.replace(scaled, ops.add(t, scaled, bias, "weights of streams: scaled, with bias"))

    def _squashed(self, t: Tape, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        given = self._scaled(t, weight, scale, bias)
        return t.replace(given, ops.sigmoid(t, given, "weights of streams: squashed"))

    def _mixing(self, t: Tape, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """Rows and columns are normed in turn, so that both sum to one (Sinkhorn-Knopp)."""
        given = self._scaled(t, weight, scale, bias).view(self._streams)
        comb = ops.softmax(t, given, "float32" if t.autocast else None, "weights of streams: softmax")
        t.end(given)
        comb = t.replace(comb, ops.shift(t, comb, "weights of streams: mixing"))
        return iterated(t, comb, self._normed, 2 * self._iterations - 1, self._kept(comb))

    @staticmethod
    def _normed(t: Tape, comb: Tensor) -> Tensor:
        total = summed(t, comb, "weights of streams: sum")
        total = t.replace(total, ops.shift(t, total, "weights of streams: sum + eps"))
        comb = t.replace(comb, divide_by(t, comb, total, "weights of streams: normed"))
        t.end(total)
        return comb

    @staticmethod
    def _kept(comb: Tensor) -> list[tuple[Size, str]]:
        """Bytes and name of what each norm keeps: what it divides and what it divides by."""
        number = ITEM_BYTES[comb.dtype]
        sums = ops.divide(comb.numel, comb.width)
        return [
            (comb.numel * number, "weights of streams: normed"),
            (sums * number, "weights of streams: sum + eps"),
        ]


class HyperHead(Module):
    """The streams become one again behind the last layer. Shapes: hc_fn (n, n hidden), hc_base (n), hc_scale (1)."""

    multiplies = True

    def __init__(self, hidden: int, streams: int) -> None:
        self.hc_fn = _held_whole((streams, streams * hidden))
        self.hc_base = _held_whole((streams,))
        self.hc_scale = _held_whole((1,))
        self._hidden, self._streams = hidden, streams

    def forward(self, t: Tape, streams: Tensor) -> Tensor:
        """Shapes: (rows, n hidden) to (rows, hidden)."""
        flat = _flat(t, streams, self._streams * self._hidden)
        flat = unweighted_norm(t, flat, "streams")
        mixes = ops.linear(t, flat, self.hc_fn, "weights of streams")
        scaled = ops.mul(t, mixes, t.parameter(self.hc_scale), "weights of streams: scaled")
        scaled = t.replace(
            scaled, ops.add(t, scaled, t.parameter(self.hc_base), "weights of streams: scaled, with bias")
        )
        scaled = t.replace(scaled, ops.sigmoid(t, scaled, "weights of streams: squashed"))
        pre = t.replace(scaled, ops.shift(t, scaled, "weights of streams: collapsing"))
        return collapsed(t, streams, pre, self._hidden)


def collapsed(t: Tape, streams: Tensor, weights: Tensor, hidden: int) -> Tensor:
    """The streams' weighted sum, in their dtype. Shapes: (rows, n hidden) and (rows, n) to (rows, hidden)."""
    product = ops.mul(t, streams, weights, "streams, weighted")
    total = t.new(TOKENS * hidden, product.dtype, hidden, "streams: sum")
    numel, width = product.numel, product.width

    def apply(g: Tensor) -> Tensor:
        return Tensor(g.storage, numel, g.dtype, width).as_view()

    t.record("streams: sum", [total], [product], [], apply)
    t.end(product)
    return ops.cast(t, total, streams.dtype, "streams, collapsed")


def mixed(t: Tape, streams: Tensor, made: Tensor, post: Tensor, comb: Tensor, hidden: int) -> Tensor:
    """What a block made, spread over the streams, and the streams themselves, mixed. Shapes: (rows, n hidden)."""
    dtype = streams.dtype
    spread = ops.cast(t, post, dtype, "weights of streams: expanding, cast")
    expanded = ops.mul(t, made, spread, "streams: block's result, spread", numel=streams.numel)
    mixing = ops.cast(t, comb, dtype, "weights of streams: mixing, cast")
    flops = comb.numel * (2 * hidden)
    product = ops.matmul(t, mixing, streams.view(hidden), streams.numel, hidden, "streams, mixed", flops=flops)
    out = ops.add(t, expanded, product, "streams after the block")
    t.end(expanded, product)
    return out

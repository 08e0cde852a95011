"""Kimi's delta rule over chunks of the sequence: a decay for every channel, so that pairs of positions are as wide as a head.

Source: transformers 5.23, `chunk_kimi_delta_attention` of models/kimi_linear/modeling_kimi_linear.py, which Ling repeats; in float32,
as transformers' own PyTorch code computes it. flash-linear-attention's kernel, which runs where it is installed, keeps much less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from loralens.core.tape import derivatives, ops
from loralens.core.tape.folding import assign, masked, pad, running_sum, summed
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import divide_by, exp
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.turns import padded_rows, run_turns

CHUNK: Final = 64


@dataclass(frozen=True, slots=True)
class KimiRule:
    """Heads and their width."""

    heads: int
    width: int

    def __call__(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
        """Shapes: q, k, v and g (rows, heads * width), beta (rows, heads); like v."""
        dtype, rows = q.dtype, padded_rows(t, CHUNK)
        wide = rows * (self.heads * self.width)
        q, k, v = (self._laid_out(t, x.view(self.width), name) for x, name in ((q, "query"), (k, "key"), (v, "value")))
        beta, g = self._laid_out(t, beta, "beta"), self._laid_out(t, g.view(self.width), "decay")
        q = _normalized(t, q, "query")
        k = _normalized(t, k, "key")
        padded = pad(t, q, wide, "delta rule: query, padded")
        q = ops.scale(t, padded, "delta rule: scaled query")
        t.end(padded)
        k = pad(t, k, wide, "delta rule: key, padded")
        v = pad(t, v, wide, "delta rule: value, padded")
        g = pad(t, g, wide, "delta rule: decay, padded")
        beta = pad(t, beta, rows * self.heads, "delta rule: beta, padded")
        out = self._chunks(t, rows, q, k, v, g, beta)
        if rows != TOKENS:
            out = ops.cut(t, out, "delta rule: cut to the sequence", numel=TOKENS * (self.heads * self.width))
        out = ops.copy(t, out, "delta rule: output, laid out")
        return ops.cast(t, out, dtype, "delta rule: result")

    @staticmethod
    def _laid_out(t: Tape, x: Tensor, name: str) -> Tensor:
        laid = ops.copy(t, x, f"delta rule: {name}, laid out")
        return ops.cast(t, laid, "float32", f"delta rule: {name} in float32")

    def _chunks(self, t: Tape, rows: Size, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
        v_beta = ops.mul(t, v, beta, "delta rule: value * beta")
        k_beta = ops.mul(t, k, beta, "delta rule: key * beta")
        g = t.replace(g, running_sum(t, g, "delta rule: sums of decay"))
        mask = t.new(ONE * CHUNK**2, "bool", CHUNK, "delta rule: mask")
        strict = t.new(ONE * CHUNK**2, "bool", CHUNK, "delta rule: mask")
        decay = self._pairs(t, rows, g, strict)
        system = self._products(t, k_beta, k, decay, rows, "delta rule: system")
        system = t.replace(system, masked(t, system, mask, "delta rule: system, masked"))
        system = t.replace(system, ops.scale(t, system, "delta rule: system, negated"))
        system = self._solved(t, rows, system)
        whole = rows * (self.heads * self.width)
        flops = whole * (2 * CHUNK)
        values = ops.matmul(t, system, v_beta, whole, self.width, "delta rule: new values", flops=flops)
        decayed = ops.mul(t, k_beta, exp(t, g, "delta rule: decay from the start"), "delta rule: key * beta, decayed")
        keys = ops.matmul(t, system, decayed, whole, self.width, "delta rule: keys that read the state", flops=flops)
        t.end(decayed)
        state = t.new(BATCH * (self.heads * self.width**2), values.dtype, self.width, "delta rule: first state")
        out = t.new(values.numel, values.dtype, self.width, "delta rule: output")
        sweep = _Sweep(t, self, values, keys, q, k, g, decay, mask, out)
        run_turns(t, CHUNK, state, sweep.turn)
        return sweep.out

    def _pairs(self, t: Tape, rows: Size, sums: Tensor, mask: Tensor) -> Tensor:
        """Decay from every position of a chunk to every other, by channel."""
        numel = rows * (self.heads * self.width * CHUNK)
        first, second = (ops.broadcast(t, sums, numel, "delta rule: sums for all pairs", summed=True) for _ in range(2))
        pairs = ops.sub(t, first, second, "delta rule: sums between positions")
        pairs = t.replace(pairs, masked(t, pairs, mask, "delta rule: sums between positions, masked"))
        return exp(t, pairs, "delta rule: decay between positions")

    def _products(self, t: Tape, a: Tensor, b: Tensor, decay: Tensor, rows: Size, label: str) -> Tensor:
        """Sum over the channels of `a * b * decay`, for every pair of positions."""
        numel = rows * (self.heads * self.width * CHUNK)
        first = ops.broadcast(t, a, numel, f"{label}: for all pairs", summed=True)
        second = ops.broadcast(t, b, numel, f"{label}: for all pairs", summed=True)
        product = ops.mul(t, first, second, f"{label}: product")
        decayed = ops.mul(t, product, decay, f"{label}: product, decayed")
        t.end(product)
        out = summed(t, decayed, f"{label}: sum")
        t.end(decayed)
        return out

    def _solved(self, t: Tape, rows: Size, system: Tensor) -> Tensor:
        """Row by row, each from those above it, which are copied first."""

        def of(each: int) -> Size:  # so many numbers for each chunk and head
            return Size([value * self.heads * each // CHUNK for value in rows])

        label = "delta rule: solved"
        row: Tensor | None = None
        for number in range(1, CHUNK):
            line = ops.cut(t, system, f"{label}: row", numel=of(CHUNK))
            own = ops.copy(t, ops.cut(t, line, f"{label}: row", numel=of(number), width=number), f"{label}: row")
            t.end(row)
            row = own
            above = ops.cut(t, system, f"{label}: rows above", numel=of(CHUNK * number))
            above = ops.cut(t, above, f"{label}: rows above", numel=of(number**2), width=number)
            block = ops.copy(t, above, f"{label}: rows above")
            spread = ops.broadcast(t, row, of(number**2), f"{label}: row", summed=number > 1)
            product = ops.mul(t, spread, block, f"{label}: product")
            total = ops.total(t, product, f"{label}: sum", numel=of(number), width=number)
            t.end(product)
            added = ops.add(t, row, total, f"{label}: row")
            t.end(total)
            system = assign(t, system, added, label)
            t.end(added)
        return t.replace(system, ops.shift(t, system, f"{label}, with ones"))


class _Sweep:
    """The chunks one after the other: each reads the state of those before it and hands its own on."""

    def __init__(self, t: Tape, rule: KimiRule, values: Tensor, keys: Tensor, q: Tensor, k: Tensor, g: Tensor, decay: Tensor,
                 mask: Tensor, out: Tensor) -> None:  # fmt: skip
        self._t, self._rule = t, rule
        self._values, self._keys, self._q, self._k, self._g, self._decay, self._mask = (
            values,
            keys,
            q,
            k,
            g,
            decay,
            mask,
        )
        self.out = out
        self._held: list[Tensor] = []

    def turn(self, state: Tensor, _: int) -> Tensor:
        """Shapes: state (samples, heads, width, width) to the same."""
        t, r = self._t, self._rule
        numel = BATCH * (CHUNK * r.heads * r.width)
        flops = numel * (2 * r.width)
        q, k, v, g = (self._of_chunk(x) for x in (self._q, self._k, self._values, self._g))
        decayed = ops.mul(t, q, exp(t, g, "delta rule: decay from the start"), "delta rule: query, decayed")
        read = ops.matmul(t, decayed, state, numel, r.width, "delta rule: state, read", flops=flops)
        t.end(decayed)
        inside = self._inside(t, q, k)
        known = ops.matmul(
            t, self._of_chunk(self._keys), state, numel, r.width, "delta rule: values that the state knows", flops=flops
        )
        new = ops.sub(t, v, known, "delta rule: what is new in a chunk")
        attended = ops.matmul(t, inside, new, numel, r.width, "delta rule: chunk, read", flops=numel * (2 * CHUNK))
        both = ops.add(t, read, attended, "delta rule: output of a chunk")
        t.end(attended)
        self.out = assign(t, self.out, both, "delta rule: output")
        t.end(both)
        last = ops.cut(t, g, "delta rule: last sums", numel=BATCH * (r.heads * r.width))
        kept = ops.mul(t, state, exp(t, last, "delta rule: a chunk's decay"), "delta rule: state, decayed")
        last = ops.cut(t, g, "delta rule: last sums", numel=BATCH * (r.heads * r.width))
        left = ops.sub(
            t, ops.broadcast(t, last, numel, "delta rule: last sums", summed=True), g, "delta rule: sums to the end"
        )
        weighted = ops.mul(t, k, exp(t, left, "delta rule: decay to the end"), "delta rule: key, decayed")
        t.end(left)
        flops = state.numel * (2 * CHUNK)
        added = ops.matmul(t, weighted, new, state.numel, r.width, "delta rule: added to the state", flops=flops)
        t.end(weighted)
        following = ops.add(t, kept, added, "delta rule: state")
        t.end(kept, added)
        self._held = [read, inside, known, new]
        return following

    def _inside(self, t: Tape, q: Tensor, k: Tensor) -> Tensor:
        r = self._rule
        pairs = BATCH * (CHUNK * CHUNK * r.heads * r.width)
        first = ops.broadcast(t, q, pairs, "delta rule: query for all pairs", summed=True)
        second = ops.broadcast(t, k, pairs, "delta rule: key for all pairs", summed=True)
        product = ops.mul(t, first, second, "delta rule: attention in the chunk: product")
        decay = ops.cut(t, self._decay, "delta rule: decay of a chunk", numel=pairs)
        decayed = ops.mul(t, product, decay, "delta rule: attention in the chunk: product, decayed")
        t.end(product)
        total = summed(t, decayed, "delta rule: attention in the chunk: sum")
        t.end(decayed)
        return t.replace(total, masked(t, total, self._mask, "delta rule: attention in the chunk"))

    def _of_chunk(self, x: Tensor) -> Tensor:
        numel = BATCH * (CHUNK * self._rule.heads * self._rule.width)
        return ops.cut(self._t, x, "delta rule: part of a chunk", numel=numel)


def _normalized(t: Tape, x: Tensor, name: str) -> Tensor:
    square = ops.mul(t, x, x, f"delta rule: squares of the {name}")
    length = summed(t, square, f"delta rule: squared length of the {name}")
    t.end(square)
    shifted = ops.shift(t, length, "delta rule: squared length + eps")
    t.end(length)
    root = derivatives.sqrt(t, shifted, f"delta rule: length of the {name}")
    t.end(shifted)
    return divide_by(t, x, root, f"delta rule: {name}, of length one")

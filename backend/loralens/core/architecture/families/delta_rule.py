"""The gated delta rule over chunks of the sequence, as transformers' own PyTorch code computes it, in float32.

Source: transformers 5.23, `torch_chunk_gated_delta_rule` and `l2norm` of models/qwen3_next/modeling_qwen3_next.py, which
Qwen3.5 and OLMo-Hybrid repeat. flash-linear-attention's kernel, which runs where it is installed, keeps much less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from loralens.core.architecture.families.fused_mixers import gated_delta_rule
from loralens.core.tape import ops
from loralens.core.tape.folding import assign, masked, pad, running_sum, solve_triangular, summed
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import exp
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.turns import padded_rows, run_turns

CHUNK: Final = 64


@dataclass(frozen=True, slots=True)
class DeltaRule:
    """Heads of keys and of values, and their widths."""

    key_heads: int
    value_heads: int
    key: int
    value: int

    def __call__(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
        """Shapes: q and k (rows, key heads * key), v (rows, value heads * value), g and beta (rows, value heads); like v."""
        if t.kernels.fused_mixers:
            return gated_delta_rule(t, self, q, k, v, g, beta)
        dtype, rows = q.dtype, padded_rows(t, CHUNK)
        wide = self.value_heads * self.key
        if self.key_heads != self.value_heads:
            q = ops.copy(t, q, "delta rule: query for all heads", TOKENS * wide, wide)
            k = ops.copy(t, k, "delta rule: key for all heads", TOKENS * wide, wide)
        q, k, v, beta = (
            ops.cast(t, q, "float32", "delta rule: query in float32"),
            ops.cast(t, k, "float32", "delta rule: key in float32"),
            ops.cast(t, v, "float32", "delta rule: value in float32"),
            ops.cast(t, beta, "float32", "delta rule: beta in float32"),
        )
        q = _normalized(t, q.view(self.key), "query")
        k = _normalized(t, k.view(self.key), "key")
        q = ops.scale(t, q, "delta rule: scaled query")
        q, k, v = (
            pad(t, q, rows * wide, "delta rule: query, padded"),
            pad(t, k, rows * wide, "delta rule: key, padded"),
            pad(t, v.view(self.value), rows * (self.value_heads * self.value), "delta rule: value, padded"),
        )
        beta, g = (
            pad(t, beta, rows * self.value_heads, "delta rule: beta, padded"),
            pad(t, g, rows * self.value_heads, "delta rule: decay, padded"),
        )
        out = self._chunks(t, rows, q, k, v, g, beta)
        out = ops.copy(t, out, "delta rule: output, laid out")  # it lay by column, as what is solved for does
        if rows != TOKENS:
            out = ops.cut(t, out, "delta rule: cut to the sequence", numel=TOKENS * (self.value_heads * self.value))
        # as 32-bit numbers the result stays as it lies, by head, and is laid out by the caller
        return (
            ops.copy(t, out, "delta rule: result")
            if dtype == "float32"
            else ops.cast(t, out, dtype, "delta rule: result")
        )

    def _chunks(self, t: Tape, rows: Size, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
        v_beta = ops.mul(t, v, beta, "delta rule: value * beta")
        k_beta = ops.mul(t, k, beta, "delta rule: key * beta")
        with t.temporary(ONE * CHUNK**2, "bool", CHUNK, "delta rule: mask"):
            mask = t.new(ONE * CHUNK**2, "bool", CHUNK, "delta rule: mask")
        sums = running_sum(t, g, "delta rule: sums of decay")
        decay = self._pairs(t, rows, sums, mask)
        system = self._attention(t, rows, k_beta, k, decay, "delta rule: system")
        inside = self._attention(t, rows, q, k, decay, "delta rule: attention in the chunk")
        decayed = ops.mul(
            t, k_beta, exp(t, sums, "delta rule: decay from the start"), "delta rule: key * beta, decayed"
        )
        values = solve_triangular(t, system, v_beta, "delta rule: new values")
        keys = solve_triangular(t, system, decayed, "delta rule: keys that read the state")
        state = t.new(BATCH * self._state, values.dtype, self.value, "delta rule: first state")
        out = t.new(values.numel, values.dtype, self.value, "delta rule: output")
        q = ops.mul(t, q, exp(t, sums, "delta rule: decay from the start"), "delta rule: query, decayed")
        k = ops.mul(t, k, self._to_end(t, sums), "delta rule: key, decayed")
        last = Size([value * self.value_heads // CHUNK for value in rows])  # whole numbers: below 64 heads, none
        of_chunk = exp(t, ops.cut(t, sums, "delta rule: last sums", numel=last, width=1), "delta rule: chunks' decay")
        sweep = _ChunkSweep(t, self, values, keys, q, inside, of_chunk, k, out)
        run_turns(t, CHUNK, state, sweep.turn)
        return sweep.out

    def _to_end(self, t: Tape, sums: Tensor) -> Tensor:
        last = ops.cut(t, sums, "delta rule: last sums")
        return exp(t, ops.sub(t, sums, last, "delta rule: sums to the end"), "delta rule: decay to the end")

    @property
    def _state(self) -> int:
        return self.value_heads * self.key * self.value

    def _pairs(self, t: Tape, rows: Size, sums: Tensor, mask: Tensor) -> Tensor:
        """Decay from every position of a chunk to every other."""
        numel = rows * (self.value_heads * CHUNK)
        first, second = (
            ops.broadcast(t, sums, numel, "delta rule: sums for all pairs", summed=True).view(CHUNK) for _ in range(2)
        )
        pairs = ops.sub(t, first, second, "delta rule: sums between positions")
        pairs = masked(t, pairs, mask, "delta rule: sums between positions, masked")
        return exp(t, pairs, "delta rule: decay between positions")

    def _attention(self, t: Tape, rows: Size, a: Tensor, b: Tensor, decay: Tensor, label: str) -> Tensor:
        product = ops.matmul(t, a, b, rows * (self.value_heads * CHUNK), CHUNK, f"{label}: product")
        return ops.mul(t, product, decay, label)


class _ChunkSweep:
    """The chunks one after the other: each reads the state of those before it and hands its own on."""

    def __init__(self, t: Tape, rule: DeltaRule, values: Tensor, keys: Tensor, q: Tensor, inside: Tensor, decay: Tensor,
                 k: Tensor, out: Tensor) -> None:  # fmt: skip
        self._t, self._rule = t, rule
        self._values, self._keys, self._q, self._inside, self._decay, self._k = values, keys, q, inside, decay, k
        self.out = out
        self._new: Tensor | None = None
        self._read: Tensor | None = None

    def turn(self, state: Tensor, _: int) -> Tensor:
        """Shapes: state (samples, heads, key, value) to the same."""
        t, r = self._t, self._rule
        numel, heads = BATCH * (CHUNK * r.value_heads * r.value), BATCH * (CHUNK * r.value_heads)
        chunk = ops.cut(t, self._values, "delta rule: new values of a chunk", numel=numel)
        known = ops.matmul(
            t, self._of_chunk(self._keys), state, numel, r.value, "delta rule: values that the state knows"
        )
        self._new = new = ops.sub(t, chunk, known, "delta rule: what is new in a chunk")
        t.end(known)
        self._read = read = ops.matmul(t, self._of_chunk(self._q), state, numel, r.value, "delta rule: state, read")
        inside = ops.cut(t, self._inside, "delta rule: attention of a chunk", numel=heads * CHUNK)
        attended = ops.matmul(t, inside, new, numel, r.value, "delta rule: chunk, read")
        both = ops.add(t, read, attended, "delta rule: output of a chunk")
        t.end(attended)
        self.out = assign(t, self.out, both, "delta rule: output")
        t.end(both)
        decay = ops.cut(t, self._decay, "delta rule: a chunk's decay", numel=BATCH * r.value_heads)
        decayed = ops.mul(t, state, decay, "delta rule: state, decayed")
        added = ops.matmul(
            t,
            self._of_chunk(self._k),
            new,
            state.numel,
            r.value,
            "delta rule: added to the state",
            flops=state.numel * (2 * CHUNK),
        )
        return ops.add(t, decayed, added, "delta rule: state")

    def _of_chunk(self, x: Tensor) -> Tensor:
        numel = BATCH * (CHUNK * self._rule.value_heads * self._rule.key)
        return ops.cut(self._t, x, "delta rule: part of a chunk", numel=numel)


def _normalized(t: Tape, x: Tensor, name: str) -> Tensor:
    square = ops.mul(t, x, x, f"delta rule: squares of the {name}")
    length = summed(t, square, f"delta rule: squared length of the {name}")
    t.end(square)
    inverse = ops.rsqrt(
        t, ops.shift(t, length, "delta rule: squared length + eps"), f"delta rule: 1/length of the {name}"
    )
    return ops.mul(t, x, inverse, f"delta rule: {name}, of length one")

"""Mamba-2's scan over chunks, as transformers' own PyTorch code computes it: all chunks at once, by einsum.

Source: transformers 5.23, `mamba2_chunk_scan` and `segment_sum` of models/mamba2/modeling_mamba2.py, which the hybrids repeat.
The tables between chunks, (chunks + 1)^2 numbers for each head, are small and not booked.
"""

from __future__ import annotations

from dataclasses import dataclass

from loralens.core.tape import ops
from loralens.core.tape.folding import contract, masked_fill, pad, running_sum
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import exp, softplus
from loralens.core.tape.size import BATCH, SEQUENCE, TOKENS, Size
from loralens.core.tape.tape import Tape


@dataclass(frozen=True, slots=True)
class Scan:
    """Sizes of a scan: `inner` = heads x head width, `state` numbers for each of those, chunks of `chunk` positions."""

    heads: int
    inner: int
    state: int
    groups: int
    chunk: int

    def __call__(
        self, t: Tape, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, bias: Tensor
    ) -> Tensor:
        """Shapes: x (rows, inner), dt (rows, heads), b and c (rows, groups*state), a, d, bias (heads); result like x, float32."""
        rows = self.rows(t)
        dt = ops.add(t, dt, ops.cast(t, bias, dt.dtype, "scan: bias"), "scan: step and bias")
        dt = softplus(t, dt, "scan: step")
        dt = ops.clamp(t, dt, "scan: clamped step")
        x = ops.cast(t, x, "float32", "scan: input in float32")
        b = self._for_all_heads(t, b, "B")
        c = self._for_all_heads(t, c, "C")
        residual = ops.mul(t, pad(t, x, rows * self.inner, "scan: input, padded"), d, "scan: D * input")
        x = ops.mul(t, x, ops.cast(t, dt, "float32", "scan: step in float32"), "scan: input * step")
        a = ops.mul(t, ops.cast(t, dt, "float32", "scan: step in float32"), a, "scan: A * step")
        x, a, b, c = (
            pad(t, x, rows * self.inner, "scan: input * step, padded"),
            pad(t, a, rows * self.heads, "scan: A * step, padded"),
            pad(t, b, rows * (self.heads * self.state), "scan: B, padded"),
            pad(t, c, rows * (self.heads * self.state), "scan: C, padded"),
        )
        decay = running_sum(t, a, "scan: sums in the chunks")
        return self._chunks(t, rows, x, a, b, c, decay, residual)

    def _chunks(
        self, t: Tape, rows: Size, x: Tensor, a: Tensor, b: Tensor, c: Tensor, decay: Tensor, residual: Tensor
    ) -> Tensor:
        pairs, states = rows * (self.chunk * self.heads), self._states(rows)
        several = t.validity.exceeds("sequence_length", self.chunk)  # one chunk lies as a product needs it
        mask = exp(t, self._segments(t, a, pairs), "scan: decay between positions")
        within, across_state = x.numel * (2 * self.chunk), x.numel * (2 * self.state)
        scores = contract(t, c, b, pairs, self.chunk, "scan: C B", flops=pairs * (2 * self.state))
        weights = ops.mul(t, scores, mask, "scan: C B, decayed")
        inside = contract(
            t, weights, x, x.numel, self.inner, "scan: output of the chunk", flops=within, copies=(False, several)
        )
        last = exp(t, ops.shift(t, decay, "scan: sums to the end"), "scan: decay to the end")
        decayed = ops.mul(t, b, last, "scan: B, decayed")
        own = contract(
            t, decayed, x, states, self.state, "scan: states of the chunks", flops=across_state, copies=(True, several)
        )
        one = BATCH * (self.inner * self.state)
        before = t.new(one, own.dtype, self.state, "scan: first state")
        own = ops.cat(t, [before, own], self.state, "scan: states, with the first")
        passed = self._passed_on(t, decay, own, states + one)
        start = t.replace(own, ops.cut(t, passed, "scan: states at the start", numel=states))
        first = exp(t, decay, "scan: decay from the start")
        read = contract(
            t, c, start, x.numel, self.inner, "scan: C * states", flops=across_state, copies=(True, several)
        )
        across = ops.mul(t, read, first, "scan: output of earlier chunks")
        output = ops.add(t, inside, across, "scan: output")
        output = ops.copy(t, output, "scan: output, laid out")
        output = ops.add(t, output, residual, "scan: output and D * input")
        t.end(before)
        return ops.cut(t, output, "scan: cut to the sequence", numel=TOKENS * self.inner) if rows != TOKENS else output

    def rows(self, t: Tape) -> Size:
        """Positions of the batch, with those that fill the last chunk of each sample."""
        left = t.validity.remainder("sequence_length", self.chunk)
        return TOKENS + BATCH * (-left % self.chunk)

    def _states(self, rows: Size) -> Size:
        """Numbers in the states of all chunks."""
        return Size([value * self.inner * self.state // self.chunk for value in rows])

    def _for_all_heads(self, t: Tape, x: Tensor, name: str) -> Tensor:
        width = self.heads * self.state
        x = ops.cast(t, x, "float32", f"scan: {name} in float32")
        if self.groups == self.heads:
            return ops.copy(t, x, f"scan: {name} for all heads")
        return ops.copy(t, x, f"scan: {name} for all heads", TOKENS * width, width)

    def _segments(self, t: Tape, a: Tensor, pairs: Size) -> Tensor:
        x = ops.broadcast(t, a, pairs, "scan: A * step for all positions", summed=True)
        x = masked_fill(t, x, self.chunk, "scan: A * step, masked")
        sums = running_sum(t, x, "scan: sums between positions")
        return masked_fill(t, sums, self.chunk, "scan: sums between positions, masked")

    def _passed_on(self, t: Tape, decay: Tensor, own: Tensor, numel: Size) -> Tensor:
        """A product with a small table: every state is a sum of those before it."""
        table = ops.indexed(t, decay, None, BATCH * self.heads, 1, "scan: decay between chunks")
        flops = numel.times(SEQUENCE) * 2 // self.chunk  # over all chunks
        return contract(
            t, table, own, numel, self.state, "scan: states at the start", flops=flops, copies=(False, False)
        )

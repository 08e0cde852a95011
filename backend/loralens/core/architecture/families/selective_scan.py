"""Mamba's selective scan, as transformers' own PyTorch code computes it: one position after the other.

Source: transformers 5.23, `mamba_selective_scan` of models/mamba/modeling_mamba.py, which Jamba and Falcon-Mamba repeat.
mamba-ssm's kernel, which runs where it is installed, keeps much less.
"""

from __future__ import annotations

from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import exp, softplus
from loralens.core.tape.size import BATCH, TOKENS
from loralens.core.tape.tape import Tape
from loralens.core.tape.turns import Collected, run_turns


def selective_scan(
    t: Tape, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, bias: Tensor, z: Tensor
) -> Tensor:
    """Shapes: x, dt and z (rows, inner), a (inner, state), b and c (rows, state), d and bias (inner); result like x, float32."""
    assert isinstance(x.width, int) and isinstance(b.width, int)
    inner, state = x.width, b.width
    numel = TOKENS * (inner * state)
    dt = ops.add(t, dt, ops.cast(t, bias, dt.dtype, "scan: bias"), "scan: step and bias")
    dt = softplus(t, dt, "scan: step")
    decay = exp(t, ops.mul(t, dt, a, "scan: A * step", numel=numel), "scan: decay")
    wide = ops.cast(t, b.view(), "float32", "scan: B in float32")
    steps = ops.mul(t, dt, wide, "scan: B * step", numel=numel)
    t.end(wide)
    wide = ops.cast(t, x.view(), "float32", "scan: input in float32")
    added = ops.mul(t, steps, wide, "scan: B * step * input")
    t.end(wide)
    sweep = _PositionSweep(t, decay, added, c, x.dtype, inner, state)
    out = sweep.run()
    out = ops.add(t, out, ops.mul(t, x, d, "scan: D * input"), "scan: output and D * input")
    return ops.mul(t, out, ops.silu(t, z, "scan: activated gate"), "scan: gated output")


class _PositionSweep:
    """The positions one after the other; what they give is collected, and stacked when the last one has run."""

    def __init__(self, t: Tape, decay: Tensor, added: Tensor, c: Tensor, dtype: str, inner: int, state: int) -> None:
        self._t, self._decay, self._added, self._c, self._dtype = t, decay, added, c, dtype
        self._inner, self._state = inner, state
        self._given = Collected(t, 1, inner, t.autocast or dtype, "scan: outputs")

    def run(self) -> Tensor:
        """The output of all positions. Shapes: (rows, inner)."""
        t = self._t
        first = t.new(BATCH * (self._inner * self._state), self._dtype, self._state, "scan: first state")
        last = run_turns(t, 1, first, self._turn)
        t.end(first)
        out = self._given.joined()
        t.end(last)
        return out

    def _turn(self, state: Tensor, _: int) -> Tensor:
        t, one = self._t, BATCH * self._inner
        decay = ops.cut(t, self._decay, "scan: decay of a position", numel=one * self._state)
        kept = ops.mul(t, decay, state, "scan: state, decayed")
        added = ops.cut(t, self._added, "scan: B * step * input of a position", numel=one * self._state)
        state = ops.add(t, kept, added, "scan: state")
        t.end(kept)
        low = ops.cast(t, state, self._dtype, "scan: state in the input's dtype")
        c = ops.cut(t, self._c, "scan: C of a position", numel=BATCH * self._state)
        out = ops.matmul(t, low, c, one, 1, "scan: C * state", flops=one * (2 * self._state))
        self._given.add(ops.cut(t, out, "scan: output of a position", numel=one))
        return state

"""Attention with a learned bias for every pair of positions, which becomes an additive mask and may have a gradient.

Source: transformers 5.23 integrations/sdpa_attention.py, `create_position_bias_mask`; torch 2.13
aten/src/ATen/native/transformers/attention.cpp, `pad_bias`: the efficient kernel reads masks in rows of 16 values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.kernels import ALIGNMENT
from loralens.core.tape.size import ONE, Size

if TYPE_CHECKING:
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity


@dataclass(frozen=True, slots=True)
class PositionBias:
    """A bias of shape (1, heads, queries, keys) and how it is used."""

    tensor: Tensor
    heads: int
    queries: Size
    keys: Size
    heads_last: bool  # heads lie last in memory: a lookup's result, seen the other way round
    causal: bool  # without a mask, later positions are hidden by one made for each call

    def spread(self, rows: Size) -> Size:
        """Elements when every sample has its own."""
        return rows.times(self.keys) * self.heads


def additive_mask(t: Tape, bias: PositionBias, mask: Tensor | None, rows: Size) -> Tensor:
    """Bias and mask in one tensor, laid out by head; the bias itself where nothing is hidden and it lies so already."""
    out, hidden = bias.tensor, None
    if mask is not None:
        out = _where(t, out, mask, bias.spread(rows))
    elif bias.causal:
        hidden = t.new(bias.queries.times(bias.keys), "bool", 1, "attention: later positions")
        out = _where(t, out, hidden, out.numel)
    if bias.heads_last:
        out = ops.copy(t, out, "attention: position biases by head")
    return out


def for_kernel(t: Tape, bias: PositionBias, mask: Tensor, rows: Size, validity: Validity) -> tuple[Tensor, Size]:
    """The mask as the efficient kernel reads it, rows padded to 16 values and expanded over the batch; its gradient's size."""
    left = -validity.remainder("sequence_length", ALIGNMENT) % ALIGNMENT
    wide = bias.keys + ONE * left
    gradient = rows.times(wide) * bias.heads
    samples = mask.numel == bias.spread(rows)
    if left:
        mask = padded(t, mask, gradient if samples else bias.queries.times(wide) * bias.heads)
    if samples:
        return mask, gradient
    several = validity.exceeds("micro_batch_size", 1)
    return ops.broadcast(t, mask, bias.spread(rows), "attention: position biases", summed=several), gradient


def padded(t: Tape, mask: Tensor, whole: Size) -> Tensor:
    """Rows padded to `whole` in all, and cut again: the storage stays the padded one."""
    wide = t.new(whole, mask.dtype, 1, "attention: position biases, rows padded")
    numel, dtype = mask.numel, mask.dtype
    label = "attention: position biases, rows padded"
    t.record(label, [wide], [mask], [], lambda g: t.new(numel, dtype, 1, f"gradient: {label}", "temporaries"))
    cut = Tensor(wide.storage, numel, dtype, 1)
    t.record("cut", [cut], [wide], [], lambda g: t.new(whole, dtype, 1, f"gradient: {label}, whole", "temporaries"))
    return cut


def _where(t: Tape, bias: Tensor, shown: Tensor, numel: Size) -> Tensor:
    """`where(shown, bias, lowest)`; the gradient is masked in the result's size, then summed over the batch."""
    label = "attention: masked position biases"
    out = t.new(numel, bias.dtype, 1, label)
    source, dtype = bias.numel, bias.dtype

    def apply(g: Tensor) -> Callable[[], Tensor]:
        masked = t.new(numel, dtype, 1, f"gradient: {label}", "temporaries")

        def finish() -> Tensor:
            if source == numel:
                return masked
            return t.replace(masked, t.new(source, dtype, 1, f"gradient: {label}, summed", "temporaries"))

        return finish

    t.record(label, [out], [bias], derivatives.WHERE.kept(self=bias, condition=shown), apply)
    return out

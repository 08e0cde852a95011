"""A step that a forward pass repeats on one tensor: the first two and the last are walked, those between keep what the second does.

Between two steps memory grows by the same amount each time, and on the way back it falls by it, so its extremes lie at the
last step. A walk that follows every storage takes every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from loralens.core.tape.cost import NOTHING
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import Size
from loralens.core.tape.tape import Tape

_WALKED: Final = 3


def iterated(
    t: Tape, x: Tensor, step: Callable[[Tape, Tensor], Tensor], times: int, kept: Sequence[tuple[Size, str]]
) -> Tensor:
    """`step` so many times over, each on the result of the one before, which it ends.

    `kept`: bytes and name of each tensor that a step saves for backward, where its input has a gradient.
    """
    if t.every_layer or times <= _WALKED:
        for _ in range(times):
            x = step(t, x)
        return x
    x = step(t, x)
    t.stands_for_steps = times - _WALKED
    x = step(t, x)
    x = t.replace(x, _between(t, x, times - _WALKED, kept))
    t.stands_for_steps = 0
    return step(t, x)


def _between(t: Tape, x: Tensor, times: int, kept: Sequence[tuple[Size, str]]) -> Tensor:
    """The steps that are not walked: their result has x's size, and a node keeps what they save."""
    out = x.view()
    if x.node is None or not t.grad_enabled:
        return out
    saved = [x] if t.region else [t.new(size * times, "uint8", 1, label) for size, label in kept]
    t.record("steps between", [out], [x], saved, lambda g: g.view(), NOTHING)
    return out

"""Autocast: 16-bit copies of weights and leaves, cached until autocast ends.

Source: aten/src/ATen/autocast_mode.cpp, `cached_cast`.
"""

from __future__ import annotations

from loralens.core.tape.derivatives import cast
from loralens.core.tape.graph import LEAF, Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.tape import Tape


def cast_weight(t: Tape, weight: Tensor, parameter: Parameter | None, dtype: str) -> Tensor:
    """Autocast's copy of a weight; copies of trainable leaves are cached until autocast ends.

    Source: aten/src/ATen/autocast_mode.cpp, `cached_cast`.
    """
    if weight.dtype == dtype:
        return weight
    outside, t.section = t.section, "activations"
    try:
        if parameter is None or not parameter.trainable:
            return cast(t, weight, dtype, "autocast copies of frozen weights")
        key = (id(parameter), t.layer)
        if key not in t.cast_cache:
            t.cast_cache[key] = cast(t, weight, dtype, "autocast copies of trainable weights")
        return t.cast_cache[key]
    finally:
        t.section = outside


def cast_leaf(t: Tape, tensor: Tensor, dtype: str, label: str) -> Tensor:
    """Autocast's copy of an activation: cached like a weight's where the tensor is a float32 leaf with a gradient."""
    leaf = tensor.node is not None and tensor.node.sequence == LEAF and tensor.dtype == "float32"
    if not leaf or tensor.dtype == dtype:
        return cast(t, tensor, dtype, label)
    key = (tensor, 0)
    if key not in t.cast_cache:
        t.cast_cache[key] = cast(t, tensor, dtype, label)
    return t.cast_cache[key]


def end_autocast(t: Tape) -> None:
    """Leave autocast: its cache of weight copies is dropped, for the layers that were not simulated too."""
    for layer in sorted({layer for _, layer in t.cast_cache}):
        before = t.ledger.snapshot()
        for key in [key for key in t.cast_cache if key[1] == layer]:
            t.end(t.cast_cache.pop(key))
        skipped = t.stands_for.get(layer, 0)
        if skipped:
            t.ledger.apply(t.ledger.difference(before), skipped)

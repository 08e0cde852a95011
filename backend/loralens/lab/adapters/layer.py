"""A linear layer over which adapters are switched: one frozen weight, a table of factor pairs, one selection to read.

What is active is not stored in the layer. Every layer reads the same `Switchboard`, so switching the whole model is
one write whatever the number of layers. A request that must not be disturbed by a switch runs under `using(selection)`
and then sees only its own selection, in its own thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

BASE = -1
"""Slot number that means: no adapter."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a forward pass uses; exactly one of the four ways, the base model by default.

    adapter, way: what was chosen and how, for people to read. slot: one slot of the tables for all rows. rows: a slot
    for each row of the batch. pairs: factor pairs by layer, A (rank, in_features) and scaled B transposed
    (rank, out_features). weights: merged weights by layer.
    """

    adapter: str | None = None
    way: str = "index"
    slot: int = BASE
    rows: tuple[int, ...] | None = None
    pairs: Mapping[str, tuple[Tensor, Tensor]] | None = None
    weights: Mapping[str, Tensor] | None = None


class Switchboard:
    """Holds the selection that applies where no request has brought its own."""

    __slots__ = ("selection",)

    def __init__(self) -> None:
        self.selection = Selection()


_own: ContextVar[Selection | None] = ContextVar("loralens_selection", default=None)


@contextmanager
def using(selection: Selection) -> Iterator[None]:
    """Run forward passes of this thread (or task) under `selection`, whatever is switched meanwhile."""
    token = _own.set(selection)
    try:
        yield
    finally:
        _own.reset(token)


class SlotTable:
    """Factor pairs of one layer for all slots, padded with zeros to one width so that a slot is a slice.

    Shapes: a (slots * width, in_features); b (slots * width, out_features), B transposed with the scaling folded in.
    A zero row of `a` meets a zero row of `b`: padding adds exact zeros.
    """

    __slots__ = ("a", "b", "slots", "width")

    def __init__(self, slots: int, width: int, like: nn.Linear) -> None:
        weight = like.weight
        kind = weight.dtype if weight.is_floating_point() else torch.float32
        self.slots, self.width = slots, width
        self.a = torch.zeros(slots * width, like.in_features, dtype=kind, device=weight.device)
        self.b = torch.zeros(slots * width, like.out_features, dtype=kind, device=weight.device)

    def put(self, slot: int, lora_a: Tensor, lora_b: Tensor, scaling: float) -> None:
        """Write a pair into a slot that no running request reads."""
        start, rank = slot * self.width, lora_a.shape[0]
        self.a[start : start + rank].copy_(lora_a)
        # Scaled and rounded once, straight into its place.
        torch.mul(lora_b.T, scaling, out=self.b[start : start + rank])
        if rank < self.width:
            self.a[start + rank : start + self.width].zero_()
            self.b[start + rank : start + self.width].zero_()

    def pair(self, slot: int) -> tuple[Tensor, Tensor]:
        """Views of one slot's factors. Shapes: (width, in_features), (width, out_features)."""
        part = slice(slot * self.width, (slot + 1) * self.width)
        return self.a[part], self.b[part]

    def grown(self, slots: int, width: int, like: nn.Linear) -> SlotTable:
        """A larger table with the same content."""
        table = SlotTable(slots, width, like)
        for slot in range(self.slots):
            a, b = self.pair(slot)
            table.a[slot * width : slot * width + self.width].copy_(a)
            table.b[slot * width : slot * width + self.width].copy_(b)
        return table


class SwitchedLinear(nn.Module):
    """A frozen linear layer plus whatever adapter the selection names. (…, in_features) -> (…, out_features)."""

    def __init__(self, base_layer: nn.Linear, name: str, board: Switchboard, slots: int, width: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.name = name
        self.board = board
        self.table = SlotTable(slots, width, base_layer)
        self.filled: frozenset[int] = frozenset()

    def forward(self, x: Tensor) -> Tensor:
        selection = _own.get() or self.board.selection
        if selection.weights is not None:
            merged = selection.weights.get(self.name)
            return self.base_layer(x) if merged is None else functional.linear(x, merged, self.base_layer.bias)
        y: Tensor = self.base_layer(x)
        if selection.rows is not None:
            return self._rows(x, y, selection.rows)
        if selection.pairs is not None:
            pair = selection.pairs.get(self.name)
            return y if pair is None else _add(x, y, *pair)
        return _add(x, y, *self.table.pair(selection.slot)) if selection.slot in self.filled else y

    def _rows(self, x: Tensor, y: Tensor, rows: tuple[int, ...]) -> Tensor:
        """Every row of the batch with its own adapter, in two products for all of them.

        All adapters' A stand on top of each other; a mask keeps, for each row, the columns of its own adapter. That
        costs a few more multiplications than taking the rows apart and saves the loop over adapters.
        """
        table, used = self.table, sorted({slot for slot in rows if slot in self.filled})
        if not used:
            return y
        a = torch.cat([table.pair(slot)[0] for slot in used])
        b = torch.cat([table.pair(slot)[1] for slot in used])
        place = {slot: index for index, slot in enumerate(used)}
        mask = torch.zeros(len(rows), len(used), dtype=a.dtype, device=a.device)
        for row, slot in enumerate(rows):
            if slot in place:
                mask[row, place[slot]] = 1
        shape = (len(rows),) + (1,) * (x.dim() - 2) + (len(used) * table.width,)
        inner = functional.linear(x.to(a.dtype), a) * mask.repeat_interleave(table.width, dim=1).view(shape)
        return y + (inner @ b).to(y.dtype)


def _add(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Y + (x Aᵀ) B, added in place: `y` is fresh from the base layer. Shapes: a (rank, in), b (rank, out)."""
    inner = functional.linear(x.to(a.dtype), a)
    if y.dtype != b.dtype:
        return y + (inner @ b).to(y.dtype)
    return y.view(-1, y.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]), b).view(y.shape)

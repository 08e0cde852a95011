"""A unit of FSDP2: weights that are gathered together, and how large they are on the way.

Source: torch 2.13 distributed/fsdp/_fully_shard: _fsdp_param.py (`_init_sharded_param`: every weight is cut along its first
dimension, padded to the same number of rows on each GPU), _fsdp_collectives.py (`foreach_all_gather`, `foreach_reduce`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.ledger import Storage
from loralens.core.tape.size import ZERO, Size, share, volume

if TYPE_CHECKING:
    from loralens.core.tape.graph import Weight
    from loralens.core.tape.tape import Tape


@dataclass(frozen=True, slots=True)
class Unit:
    """Weights that come and go together among `parts` GPUs. `name`: of the end it is, or the walked layer's number."""

    name: str | int
    weights: Sequence[Weight]
    parts: int
    padding: int = 0  # rows that are added where the rank is the first dimension
    number: int = 0  # the walked layer's; 0: none

    @property
    def bytes(self) -> Size:
        """All of it as it is gathered: in the dtype in which it is used, rows padded."""
        total = ZERO
        for weight in self.weights:
            item = ITEM_BYTES[weight.dtype]
            total = total + (weight.bytes if weight.packing else self._padded(weight) * item)
        return total

    def shards(self, held: dict[int, str]) -> Size:
        """This GPU's shards of the weights that are cast before they are gathered; `held`: the dtypes at rest."""
        total = ZERO
        for weight in self.weights:
            if held.get(id(weight), weight.dtype) != weight.dtype:
                total = total + share(self._padded(weight), self.parts) * ITEM_BYTES[weight.dtype]
        return total

    def gradients(self, dtype: str | None) -> Size:
        """Gradients of the trained weights as they are reduced; `dtype` None: as backward made them."""
        total = ZERO
        for weight in self.weights:
            if weight.trainable:
                total = total + self._padded(weight) * ITEM_BYTES[dtype or weight.dtype]
        return total

    def whole(self, dtype: str | None) -> Size:
        """Whole gradients of the trained weights, in a dtype or as backward makes them."""
        total = ZERO
        for weight in self.weights:
            if weight.trainable:
                total = total + weight.numel * ITEM_BYTES[dtype or weight.dtype]
        return total

    def last(self, dtype: str | None) -> Size:
        """The last trained weight's gradient, whole, in a dtype or as backward makes it."""
        trained = [weight for weight in self.weights if weight.trainable]
        return trained[-1].numel * ITEM_BYTES[dtype or trained[-1].dtype] if trained else ZERO

    def gradient_shards(self, held: dict[int, str]) -> Size:
        """What this GPU keeps of them, in the dtype of the weights at rest."""
        total = ZERO
        for weight in self.weights:
            if weight.trainable:
                item = ITEM_BYTES[held.get(id(weight), weight.dtype)]
                total = total + share(self._padded(weight), self.parts) * item
        return total

    def copy_alone(self, t: Tape, held: dict[int, str]) -> None:
        """Weights that one GPU copies for itself, one after another; each is cast first where it is cast at all.

        Source: torch 2.13 distributed/fsdp/_fully_shard/_fsdp_param_group.py, `wait_for_unshard` (`world_size == 1`).
        """
        copied, cast = ZERO, None
        for weight in self.weights:
            moved = held.get(id(weight), weight.dtype) != weight.dtype
            there = Storage(t.ledger, copied, "temporaries", "weights copied before")
            before, cast = cast, Storage(t.ledger, weight.bytes, "temporaries", "weight, cast") if moved else None
            t.end(before)
            copied = copied + weight.bytes
            one = Storage(t.ledger, weight.bytes, "temporaries", "weight, copied")
            t.end(one, there)
        t.end(cast)

    def _padded(self, weight: Weight) -> Size:
        """Elements with as many rows for each GPU."""
        rows = weight.shape[0]
        if not isinstance(rows, int):
            return weight.numel + volume(weight.shape[1:]) * self.padding
        return weight.numel if rows % self.parts == 0 else weight.numel // rows * (-(-rows // self.parts) * self.parts)

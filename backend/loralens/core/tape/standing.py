"""How a backward pass stands when it comes to a layer: where two layers of a kind find it alike, they do the same.

What a layer's backward books depends on the gradient that arrives, on the other gradients that wait, and on what slots of
autograd are still about to let go. The graph behind the layer and the forward pass's tensors are the same for each.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape


class LastApart(Exception):
    """The last unit of a run of layers does not do as those before it did: it has to be walked by itself."""


class SharedEnds(Exception):
    """What layers share ended with the second one, since the first had no use for it: it cannot speak for later ones."""


def standing(t: Tape, gradient: Tensor) -> Hashable:
    """What tells one standing from another, with `gradient` about to arrive.

    Raises:
        LastApart: something is about to be released or has just been booked, which a layer would find once and not again.
    """
    about_to_go = (
        each.storage
        for slots in t.loose
        for each in slots
        if each is not None and each.storage is not None and each.storage.slots == 1
    )
    storage = gradient.storage
    if t.ledger.rising or storage is None or any(about_to_go):
        raise LastApart
    waiting = [
        (id(node), index, id(each.storage), each.storage and each.storage.slots, each.is_view)
        for node, slots in t.waiting.items()
        for index, each in enumerate(slots)
        if each is not None
    ]
    size = (gradient.numel, gradient.dtype, gradient.width, gradient.is_view)
    return size, (storage.size, storage.category, storage.label, storage.slots), frozenset(waiting)

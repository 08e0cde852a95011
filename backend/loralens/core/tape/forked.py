"""An attention of which two cards run different kernels, in one walk for both.

Its inputs and its result are there on both. Between them each card runs its own kernel, forward and later backward, and books
in its own ledger. Where more than that would differ, `KernelsApart` says so: the cards are then walked one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

from loralens.core.tape.graph import LEAF, Node, Tensor, let_go
from loralens.core.tape.pair import KernelsApart, OtherCard, PairedLedger, both, cut, halves, joined

if TYPE_CHECKING:
    from loralens.core.tape.engine import Slots
    from loralens.core.tape.graph import Refilled
    from loralens.core.tape.ledger import Ledger, Storage
    from loralens.core.tape.tape import Tape

Edge = tuple[Node, int]
Inputs = Sequence[Tensor | None]
Kernel = Callable[[Inputs], Tensor]
Made = dict[int, Tensor]
"""Gradients of the inputs by their places, in the order in which they were made."""


@dataclass(slots=True)
class _Inside:
    """One card's kernel: where its backward begins, and what that makes."""

    ledger: Ledger
    end: Edge | None
    made: Made = field(default_factory=dict)


def on_both(t: Tape, card: OtherCard, given: Inputs, own: Kernel, other: Kernel) -> Tensor:
    """What both kernels make of the inputs, with one node behind it that runs both backward.

    Raises:
        KernelsApart: the results are not alike, or the inputs have no nodes of their own.
    """
    pair, validity = card.pair, t.validity
    edges = [None if x is None else x.edge for x in given]
    nodes = [edge for edge in edges if edge is not None]
    if any(node.sequence == LEAF for node, _ in nodes) or len(set(nodes)) != len(nodes):
        raise KernelsApart
    inside, results = [], []
    storages = zip(*(halves(None if x is None else x.storage) for x in given), strict=True)
    cards = ((pair.own, own, validity), (pair.other, other, card.validity))
    for (ledger, kernel, known), held in zip(cards, storages, strict=True):
        t.ledger, t.validity = ledger, known
        made: Made = {}
        try:
            result = kernel([_seen(x, held[place], made, place) for place, x in enumerate(given)])
        finally:
            t.ledger, t.validity = pair, validity
        inside.append(_Inside(ledger, result.edge, made))
        results.append(result)
    out = Tensor(both(pair, *_alike(*results)), results[0].numel, results[0].dtype, results[0].width)
    region = None if t.region is None else ref(t.region)

    def apply(gradient: Tensor) -> list[Tensor | None]:
        card.waiting -= 1
        _refilled(region)
        return _backward(t, pair, inside, edges, gradient)

    t.record("attention on two cards", [out], given, [], apply)
    if out.node is not None and t.refilling is None:
        card.waiting += 1
    return out


def _seen(x: Tensor | None, storage: Storage | None, made: Made, place: int) -> Tensor | None:
    """An input as one card's kernel sees it: what is held there, and a leaf."""
    if x is None:
        return None

    def take(gradient: Tensor) -> None:
        assert gradient.storage is not None
        gradient.storage.hold()
        made[place] = gradient

    node = None if x.node is None else Node(LEAF, "input of attention", "activations", (), [], take)
    return Tensor(storage, x.numel, x.dtype, x.width, node)


def _alike(own: Tensor, other: Tensor) -> tuple[Storage, Storage]:
    """The storages of two tensors that differ in nothing else."""
    first, second = own.storage, other.storage
    sizes = [(x.numel, x.dtype, x.width, x.is_view, x.node is None) for x in (own, other)]
    if first is None or second is None or first.size != second.size or sizes[0] != sizes[1]:
        raise KernelsApart
    return first, second


def _refilled(region: ReferenceType[Refilled] | None) -> None:
    """What a region that has not run again keeps from both kernels comes back; with nobody here it lives longer for it."""
    waits = None if region is None else region()
    if waits is not None and not waits.done:
        waits.recompute()


def _backward(
    t: Tape, pair: PairedLedger, inside: Sequence[_Inside], edges: list[Edge | None], gradient: Tensor
) -> list[Tensor | None]:
    """Both kernels backward, one after the other, as if the gradient had come to each alone."""
    storage = gradient.storage
    waiting = [edge for edge in edges if edge and edge[0] in t.waiting and t.waiting[edge[0]][edge[1]] is not None]
    if storage is None or storage.slots != 1 or waiting:
        raise KernelsApart
    before = [_cut(slots) for slots in t.loose]
    unwanted: list[Tensor] = []
    for one, arriving, spent, left in zip(inside, _cut([gradient]), *before, strict=True):
        if one.end is None:
            raise KernelsApart
        t.ledger = one.ledger
        try:
            still, no_input = t.run_from([(*one.end, arriving.pop())], (spent, left))
        finally:
            t.ledger = pair
        one.end = None  # it runs once
        if any(_released(still)):
            raise KernelsApart
        let_go(still)
        unwanted += [each for each in no_input if each is not None and each.storage is not None]
    _same_last(edges, inside)
    found = [None if edge is None else _joined(pair, place, inside) for place, edge in enumerate(edges)]
    free = [place for place, edge in enumerate(edges) if edge is None]
    if len(unwanted) > len(free):
        raise KernelsApart
    for place, each in zip(free, unwanted, strict=False):  # held as anything that no input asks for
        assert each.storage is not None
        each.storage.hand_over()
        found[place] = each
    return found


def _joined(pair: PairedLedger, place: int, inside: Sequence[_Inside]) -> Tensor | None:
    """The gradient of an input, of which each kernel has made its card's."""
    own, other = (one.made.pop(place, None) for one in inside)
    if own is None or other is None:
        if own is not other:
            raise KernelsApart
        return None
    first, second = _alike(own, other)
    for storage in (first, second):
        storage.hand_over()
        if storage.slots:
            raise KernelsApart
    out = Tensor(joined(pair, first, second), own.numel, own.dtype, own.width)
    out.is_view = own.is_view
    return out


def _same_last(edges: Sequence[Edge | None], inside: Sequence[_Inside]) -> None:
    """The gradient that came last lies in a slot that may be held a little longer: no matter if that makes no difference."""
    places = [max(inside[0].made, default=None), *(next(reversed(one.made), None) for one in inside)]
    last = {edge[0] for place in places if place is not None and (edge := edges[place]) is not None}
    newest = max((edge[0] for edge in edges if edge is not None), key=lambda node: node.sequence)
    if len(last) > 1 and newest in last and not any(newest.inputs):
        raise KernelsApart


def _cut(slots: Slots) -> tuple[list[Tensor], list[Tensor]]:
    """What slots hold alone, on each card; the slots hold it no more."""
    found: tuple[list[Tensor], list[Tensor]] = [], []
    for gradient in slots:
        for storage in _released([gradient]):
            assert gradient is not None
            for held, half in zip(found, cut(storage), strict=True):
                half.hold()
                held.append(Tensor(half, gradient.numel, gradient.dtype, gradient.width))
                held[-1].is_view = gradient.is_view
            gradient.storage = None
    return found


def _released(slots: Slots) -> Iterator[Storage]:
    """What is given back when these slots let go."""
    for each in slots:
        if each is not None and each.storage is not None and each.storage.slots == 1:
            yield each.storage

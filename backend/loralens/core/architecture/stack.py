"""Walking a stack of layers: a few of each kind are simulated, the rest follow by multiplication.

Between two layers of a kind memory changes by the same amount each time, so its extremes lie at the ends of a run. Of a
run of n equal units the first two and the last are walked. The other n - 3 are like the second: on the way forward it runs
as the second, and what it did is had once more, further on, as the last but one; on the way back it is the other way
round. The n - 4 between those two only repeat the change. (A walk for the allocator's sake takes every layer: `events`.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.call import Between
from loralens.core.architecture.module import Module
from loralens.core.tape.checkpoint import checkpoint, is_reentrant, reentrant
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.ledger import Moment, Recording
    from loralens.core.tape.parameter import Parameter

APART: Final = 4  # units of a run that are told apart
WALKED: Final = 3  # of them
LONGEST_UNIT: Final = 8


@dataclass(frozen=True, slots=True)
class Placed:
    """A layer and whether only its input is kept."""

    layer: Module
    checkpointed: bool


@dataclass(frozen=True, slots=True)
class LayerRun:
    """`repeat` equal units of layers, beginning at layer `start`."""

    start: int
    unit: tuple[Placed, ...]
    repeat: int


def runs(layers: list[Placed]) -> list[LayerRun]:
    """Cut a stack into runs of repeating units (one layer, or a pattern such as five sliding and one full)."""
    result = []
    position = 0
    while position < len(layers):
        best = LayerRun(position, (layers[position],), 1)
        saved = 0
        for length in range(1, LONGEST_UNIT + 1):
            unit = layers[position : position + length]
            repeat = 1
            while layers[position + repeat * length : position + (repeat + 1) * length] == unit:
                repeat += 1
            if len(unit) == length and (repeat - APART) * length > saved:
                best, saved = LayerRun(position, tuple(unit), repeat), (repeat - APART) * length
        result.append(best)
        position += best.repeat * len(best.unit)
    return result


def walk_stack(
    t: Tape, name: str, layers: list[Module], hidden: Tensor, call: Call, *, checkpointing: bool, first: int = 0
) -> Tensor:
    """Run every layer forward; the nodes that are left behind run it backward. `first`: the first one's index."""
    call = replace(call, between=Between())  # the layers' own, which checkpoints hold when the model's forward is over
    nested = is_reentrant(call.recipe)
    weights_of = {id(layer): layer.all_parameters() for layer in {id(layer): layer for layer in layers}.values()}
    every = call.recipe.checkpoint_every
    if checkpointing and call.recipe.checkpoint_segment > 1:
        layers = in_segments(layers, call.recipe.checkpoint_segment)
        weights_of = {id(layer): layer.all_parameters() for layer in layers}
    placed = [Placed(layer, checkpointing and index % every == 0) for index, layer in enumerate(layers, first)]
    for run in runs(placed):
        length = len(run.unit)
        gap = None if t.every_layer or run.repeat <= APART else _UnwalkedLayers(t, name, first, run)
        index = run.start
        for copy in range(WALKED if gap else run.repeat):
            before = t.ledger.snapshot()
            recording = t.ledger.record() if gap and copy == 1 else None
            for position, place in enumerate(run.unit):
                layer, weights = place.layer, weights_of[id(place.layer)]
                t.layer = t.layers_walked + 1
                t.layers_walked += len(layer.parts) if isinstance(layer, Segment) else 1
                for number in range(t.layer, t.layers_walked + 1):
                    t.stands_for[number] = gap.others if gap and copy == 1 else 0
                t.ledger.where = label = f"{name}.{first + index}"
                behind = gap.other_end(label) if gap and copy == 1 else label  # on the way back
                hidden = _boundary(t, hidden, weights, behind, None if position else gap, copy)
                given = layer.arguments(call)
                together = t.hooks.before_layer(t, weights, ahead=index < len(layers) - 1)
                if not place.checkpointed:
                    hidden, _ = _run(t, layer, given, hidden)
                elif nested:
                    hidden = reentrant(t, partial(_run, t, layer, given), hidden, given.tensors(), behind, weights)
                else:
                    hidden = checkpoint(t, partial(_run, t, layer, given), hidden, given.tensors(), behind)
                t.end(together)
                call = call.following()
                # FSDP gathers ahead only units whose forward ran with gradients (torch fsdp/_runtime_utils.py,
                # `_needs_pre_backward_unshard`): not those under reentrant checkpointing
                hidden = t.hooks.behind_layer(t, weights, hidden, ahead=index > 0 and not nested)
                t.ledger.settle()
                t.ledger.mark(label)
                index += 1
            if gap and recording:
                gap.follow(recording, before)
                index += gap.others * length
    t.layer = 0  # what follows belongs to no layer: a head tied to the embedding is one parameter with it
    return hidden


class Segment(Module):
    """Layers that are checkpointed together: the input of the first one is kept, and backward runs all of them again."""

    def __init__(self, parts: tuple[Module, ...]) -> None:
        self.parts = parts

    def children(self) -> Iterator[tuple[str, Module]]:
        """The layers by their place."""
        return ((str(index), layer) for index, layer in enumerate(self.parts))

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        first = t.layer
        for index, layer in enumerate(self.parts):
            t.layer = first + index
            hidden = layer(t, hidden, call)
            t.handed.weights = None
        t.layer = first
        return hidden


def in_segments(layers: list[Module], length: int) -> list[Module]:
    """Cut a stack into segments of so many layers, the last one perhaps shorter; equal ones are one object."""
    made: dict[tuple[int, ...], Module] = {}
    cut = [tuple(layers[start : start + length]) for start in range(0, len(layers), length)]
    return [made.setdefault(tuple(map(id, parts)), Segment(parts)) for parts in cut]


def _run(t: Tape, layer: Module, call: Call, hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
    try:
        out: Tensor = layer(t, hidden, call)
        return out, list(call.between.made)
    finally:
        call.between.made.clear()
        t.handed.weights = None


class _UnwalkedLayers:
    """The units of a run that are like the second one and not walked: one at the other end, and those between."""

    def __init__(self, t: Tape, name: str, first: int, run: LayerRun) -> None:
        length, start = len(run.unit), first + run.start
        self.others = run.repeat - WALKED
        self._t = t
        self._label = f"{name}.{start + 2 * length}..{start + (self.others + 1) * length - 1}"
        second, last_but_one = start + length, start + (run.repeat - 2) * length
        self._ends = {f"{name}.{second + i}": f"{name}.{last_but_one + i}" for i in range(length)}
        self._starts = {end: begin for begin, end in self._ends.items()}
        self._before: Moment | None = None
        self._recording: Recording | None = None

    def other_end(self, label: str) -> str:
        """The name, in the last unit but one, of a layer of the second."""
        return self._ends[label]

    def follow(self, recording: Recording, before: Moment) -> None:
        """Called in forward behind the second unit: the units up to the last but one do as it did."""
        self._repeat(recording, before, self._ends)

    def leaving(self, copy: int) -> None:
        """Called in backward when a unit is done, last one first: those down to the second do as the last but one did."""
        ledger = self._t.ledger
        if copy == WALKED - 1:
            self._before, self._recording = ledger.snapshot(), ledger.record()
        elif copy == WALKED - 2 and self._before is not None and self._recording is not None:
            self._repeat(self._recording, self._before, self._starts)

    def _repeat(self, recording: Recording, before: Moment, names: dict[str, str]) -> None:
        ledger = self._t.ledger
        ledger.recorded(recording)
        change = ledger.difference(before)

        def renamed(label: str) -> str:
            own, colon, rest = label.partition(":")
            return names.get(own, own) + colon + rest

        ledger.repeat(change, self.others - 1, self._label)
        ledger.again(recording, change, self.others, renamed)


def _boundary(
    t: Tape, hidden: Tensor, weights: list[Parameter], label: str, gap: _UnwalkedLayers | None, copy: int
) -> Tensor:
    """A view with a node that tells when backward has passed a layer."""
    inside = hidden.view()
    number = t.layer

    def apply(gradient: Tensor) -> Tensor:
        t.ledger.settle()
        t.hooks.after_layer(t, weights, number)
        t.ledger.mark(label)
        if gap is not None:
            gap.leaving(copy)
        return gradient.view()

    t.record(label, [inside], [hidden], [], apply)
    return inside

"""Walking a stack of layers: a few of each kind are simulated, the rest follow by multiplication.

Between two layers of a kind memory changes by the same amount each time, so its extremes lie at the ends of a run. Of a
run of n equal units the first two are walked. The others are like the second: on the way forward it runs as the second, and
what it did is had once more, further on, as the last but one and as the last; on the way back it runs as the last, and what
it did is had as the last but one and as the second. The n - 4 between those only repeat the change. That holds where the
first finds the backward pass as the last did (`tape.standing`). Where it does not, or where a strategy or the work is asked
for, the last unit is walked by itself, and the second is the last but one on the way back. Where what all share ends with the
second, because the first has no use for it, the last but one is walked by itself too. (A walk for the allocator's sake
takes every layer: `events`.)
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
from loralens.core.tape.selected import Selected
from loralens.core.tape.size import ZERO
from loralens.core.tape.standing import LastApart, SharedEnds, standing
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from collections.abc import Hashable

    from loralens.core.architecture.call import Call
    from loralens.core.tape.ledger import Entry, Moment, Recording
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.size import Size

APART: Final = 4  # units of a run that are told apart
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
    kinds = [(id(place.layer), place.checkpointed) for place in layers]  # quicker to compare
    while position < len(layers):
        best = LayerRun(position, (layers[position],), 1)
        saved = 0
        for length in range(1, LONGEST_UNIT + 1):
            unit = kinds[position : position + length]
            repeat = 1
            while kinds[position + repeat * length : position + (repeat + 1) * length] == unit:
                repeat += 1
            if len(unit) == length and (repeat - APART) * length > saved:
                own = tuple(layers[position : position + length])
                best, saved = LayerRun(position, own, repeat), (repeat - APART) * length
        result.append(best)
        position += best.repeat * len(best.unit)
    return result


def walk_stack(
    t: Tape,
    name: str,
    layers: list[Module],
    hidden: Tensor,
    call: Call,
    *,
    checkpointing: bool,
    first: int = 0,
    last_apart: bool = False,
) -> Tensor:
    """Run every layer forward; the nodes that are left behind run it backward.

    `first`: the first one's index; `last_apart`: backward is known to find the last one otherwise than those before it.
    """
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
        units = max(t.units, 3) if last_apart else t.units
        gap = None if t.every_layer or run.repeat <= APART else _UnwalkedLayers(t, name, first, run, units)
        index = run.start
        for copy in range(gap.walked if gap else run.repeat):
            before = t.ledger.snapshot()
            recording = t.ledger.record() if gap and copy == 1 else None
            for position, place in enumerate(run.unit):
                layer, weights = place.layer, weights_of[id(place.layer)]
                t.layer = t.layers_walked + 1
                t.layers_walked += len(layer.parts) if isinstance(layer, Segment) else 1
                for number in range(t.layer, t.layers_walked + 1):
                    t.stands_for[number] = gap.others if gap and copy == 1 else 0
                t.ledger.where = label = f"{name}.{first + index}"
                behind = gap.on_the_way_back(label) if gap and copy == 1 else label
                hidden = _boundary(t, hidden, weights, behind, None if position else gap, copy)
                given = layer.arguments(call)
                together = t.hooks.before_layer(t, weights, ahead=index < len(layers) - 1)
                if not place.checkpointed:
                    hidden, _ = _run(t, layer, given, hidden)
                elif nested:
                    hidden = reentrant(t, partial(_run, t, layer, given), hidden, given.tensors(), behind, weights)
                else:
                    chosen = Selected() if call.recipe.checkpoint_saves == "ops" else None
                    inside, compiled = partial(_run, t, layer, given), call.recipe.compile
                    hidden = checkpoint(t, inside, hidden, given.tensors(), behind, chosen, compiled=compiled)
                t.end(together)
                call = call.following()
                # FSDP gathers ahead only units whose forward ran with gradients (torch fsdp/_runtime_utils.py,
                # `_needs_pre_backward_unshard`): not those under reentrant checkpointing
                hidden = t.hooks.behind_layer(t, weights, hidden, ahead=index > 0 and not nested)
                t.ledger.settle()
                t.ledger.mark(label)
                index += 1
            if gap and recording:
                hidden = gap.entrance(hidden)
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
    """The units of a run that are like the second one and not walked: those at the other end, and those between."""

    def __init__(self, t: Tape, name: str, first: int, run: LayerRun, units: int) -> None:
        self.walked = units
        self._alike = units == 2
        self.others = run.repeat - self.walked
        self._t, self._name, self._first, self._run = t, name, first + run.start, run
        self._back = {2: run.repeat - 1, 3: run.repeat - 2, 4: 1}[units]  # what the second unit is on the way back
        self._kept: dict[Entry, Size] = {}  # by the second unit, on the way forward
        self._before: Moment | None = None
        self._recording: Recording | None = None
        self._found: Hashable = None  # by the last unit, on the way back

    def _labels(self, unit: int) -> list[str]:
        length = len(self._run.unit)
        return [f"{self._name}.{self._first + unit * length + i}" for i in range(length)]

    def on_the_way_back(self, label: str) -> str:
        """The name, in the unit that the second one is then, of one of its layers."""
        return dict(zip(self._labels(1), self._labels(self._back), strict=True))[label]

    def entrance(self, hidden: Tensor) -> Tensor:
        """Behind the second unit, where it is the last one on the way back: a view whose node tells when that begins."""
        if not self._alike:
            return hidden
        inside = hidden.view()

        def apply(gradient: Tensor) -> Tensor:
            self._found = standing(self._t, gradient)
            self._before, self._recording = self._t.ledger.snapshot(), self._t.ledger.record()
            return gradient.view()

        self._t.record("last unit", [inside], [hidden], [], apply)
        return inside

    def follow(self, recording: Recording, before: Moment) -> None:
        """Called in forward behind the second unit: the units behind it do as it did."""
        change = self._recorded(recording, before)
        last_but_one = self._run.repeat - 2
        self._kept = change
        self._between(change)
        if self.walked < APART:
            self._again(recording, change, 1, last_but_one)
        if self._alike:
            self._again(recording, change, 1, last_but_one + 1)
            self._t.ledger.where = self._labels(last_but_one + 1)[-1]

    def leaving(self, copy: int, gradient: Tensor) -> None:
        """Called in backward when a unit is done, last one first: those down to the second do as the one before did."""
        ledger = self._t.ledger
        if copy == self.walked - 1 and not self._alike:
            self._before, self._recording = ledger.snapshot(), ledger.record()
        elif copy == max(1, self.walked - 2) and self._before is not None and self._recording is not None:
            change = self._recorded(self._recording, self._before)
            if self.walked == APART:
                self._between(change)
                return
            self._check_shared(change)
            if self._alike:
                if standing(self._t, gradient) != self._found:
                    raise LastApart
                self._again(self._recording, change, self._back, self._back - 1)
                ledger.where = self._labels(self._back - 1)[0]
            self._between(change)
            self._again(self._recording, change, self._back, 1)

    def _check_shared(self, change: dict[Entry, Size]) -> None:
        """A unit lets go on the way back what it kept on the way forward, and nothing that others share with it."""
        for entry, size in change.items():
            if entry[0] == "activations" and not ZERO.at_most(self._kept.get(entry, ZERO) + size):
                raise SharedEnds

    def _recorded(self, recording: Recording, before: Moment) -> dict[Entry, Size]:
        self._t.ledger.recorded(recording)
        return self._t.ledger.difference(before)

    def _between(self, change: dict[Entry, Size]) -> None:
        """The units that only repeat the change."""
        first, last = self._labels(2)[0], self._labels(self._run.repeat - 3)[-1]
        self._t.ledger.repeat(change, self._run.repeat - APART, f"{first}..{last.rpartition('.')[2]}")

    def _again(self, recording: Recording, change: dict[Entry, Size], was: int, unit: int) -> None:
        """What one unit did is had as another one's."""
        names = dict(zip(self._labels(was), self._labels(unit), strict=True))

        def renamed(label: str) -> str:
            own, colon, rest = label.partition(":")
            return names.get(own, own) + colon + rest

        self._t.ledger.again(recording, change, abs(unit - was), renamed)


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
            gap.leaving(copy, gradient)
        return gradient.view()

    t.record(label, [inside], [hidden], [], apply)
    return inside

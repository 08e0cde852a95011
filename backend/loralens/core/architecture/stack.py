"""Walking a stack of layers: a few of each kind are simulated, the rest follow by multiplication.

Between two layers of a kind memory changes by the same amount each time, so its extremes lie at the ends of a run. Of a
run of n equal units the first two and the last two are simulated; the n - 4 between them repeat what the second did on
the way forward, and what the third did on the way back. (A walk for the allocator's sake takes every layer: `events`.)
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
    from loralens.core.tape.ledger import Moment
    from loralens.core.tape.parameter import Parameter

SIMULATED: Final = 4
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
            if len(unit) == length and (repeat - SIMULATED) * length > saved:
                best, saved = LayerRun(position, tuple(unit), repeat), (repeat - SIMULATED) * length
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
        skipped = 0 if t.every_layer else max(0, run.repeat - SIMULATED)
        index = run.start
        gap = _UnwalkedLayers(
            t,
            skipped,
            f"{name}.{first + run.start + 2 * len(run.unit)}..{first + run.start + (2 + skipped) * len(run.unit) - 1}",
        )
        for copy in range(run.repeat - skipped):
            before = t.ledger.snapshot()
            for position, place in enumerate(run.unit):
                layer, weights = place.layer, weights_of[id(place.layer)]
                t.layer = t.layers_walked + 1
                t.layers_walked += len(layer.parts) if isinstance(layer, Segment) else 1
                for number in range(t.layer, t.layers_walked + 1):
                    t.stands_for[number] = skipped if copy == 1 else 0
                t.ledger.where = label = f"{name}.{first + index}"
                hidden = _boundary(t, hidden, weights, label, None if position else gap, copy)
                given = layer.arguments(call)
                together = t.hooks.before_layer(t, weights, ahead=index < len(layers) - 1)
                if not place.checkpointed:
                    hidden, _ = _run(t, layer, given, hidden)
                elif nested:
                    hidden = reentrant(t, partial(_run, t, layer, given), hidden, given.tensors(), label, weights)
                else:
                    hidden = checkpoint(t, partial(_run, t, layer, given), hidden, given.tensors(), label)
                t.end(together)
                call = call.following()
                # FSDP gathers ahead only units whose forward ran with gradients (torch fsdp/_runtime_utils.py,
                # `_needs_pre_backward_unshard`): not those under reentrant checkpointing
                hidden = t.hooks.behind_layer(t, weights, hidden, ahead=index > 0 and not nested)
                t.ledger.settle()
                t.ledger.mark(label)
                index += 1
            if copy == 1 and skipped:
                t.ledger.repeat(t.ledger.difference(before), skipped, gap.label)
                index += skipped * len(run.unit)
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
            t.returned_weights = None
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
        t.returned_weights = None


class _UnwalkedLayers:
    """The layers of a run that are not simulated: repeats, in backward, what the unit after them released."""

    def __init__(self, t: Tape, skipped: int, label: str) -> None:
        self.t = t
        self.skipped = skipped
        self.label = label
        self.before: Moment | None = None

    def leaving(self, copy: int) -> None:
        """Called in backward when a unit is done, last one first."""
        if copy == 3 and self.skipped:
            self.before = self.t.ledger.snapshot()
        elif copy == 2 and self.skipped and self.before is not None:
            self.t.ledger.repeat(self.t.ledger.difference(self.before), self.skipped, self.label)


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

"""Walking a stack of layers: a few of each kind are simulated, the rest follow by multiplication.

Between two layers of a kind memory changes by the same amount each time, so its extremes lie at the ends of a run. Of a
run of n equal units the first two and the last two are simulated; the n - 4 between them repeat what the second did on
the way forward, and what the third did on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.memory.tape import Node, Tape, Tensor

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Call
    from loralens.core.architecture.module import Module
    from loralens.core.memory.ledger import Moment

SIMULATED: Final = 4
LONGEST_UNIT: Final = 8

Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Run:
    """`repeat` equal units of layers, beginning at layer `start`."""

    start: int
    unit: tuple[Module, ...]
    repeat: int


def runs(layers: list[Module]) -> list[Run]:
    """Cut a stack into runs of repeating units (one layer, or a pattern such as five sliding and one full)."""
    result = []
    position = 0
    while position < len(layers):
        best = Run(position, (layers[position],), 1)
        saved = 0
        for length in range(1, LONGEST_UNIT + 1):
            unit = layers[position : position + length]
            repeat = 1
            while layers[position + repeat * length : position + (repeat + 1) * length] == unit:
                repeat += 1
            if len(unit) == length and (repeat - SIMULATED) * length > saved:
                best, saved = Run(position, tuple(unit), repeat), (repeat - SIMULATED) * length
        result.append(best)
        position += best.repeat * len(best.unit)
    return result


def walk_stack(t: Tape, name: str, layers: list[Module], hidden: Tensor, call: Call, *, checkpointing: bool) -> Tensor:
    """Run every layer forward; the nodes that are left behind run it backward."""
    for run in runs(layers):
        skipped = max(0, run.repeat - SIMULATED)
        index = run.start
        gap = _Gap(t, skipped, f"{name}.{run.start + 2 * len(run.unit)}..{run.start + (2 + skipped) * len(run.unit) - 1}")
        for copy in range(min(run.repeat, SIMULATED)):
            before = t.ledger.snapshot()
            for layer in run.unit:
                t.layer += 1
                t.stands_for[t.layer] = skipped if copy == 1 else 0
                t.ledger.where = label = f"{name}.{index}"
                hidden = _boundary(t, hidden, label, gap if layer is run.unit[0] else None, copy)
                hidden = _checkpointed(t, layer, hidden, call, label) if checkpointing else layer(t, hidden, call)
                t.ledger.settle()
                t.ledger.mark(label)
                index += 1
            if copy == 1 and skipped:
                t.ledger.repeat(t.ledger.difference(before), skipped, gap.label)
                index += skipped * len(run.unit)
    return hidden


class _Gap:
    """The layers of a run that are not simulated: repeats, in backward, what the unit after them released."""

    def __init__(self, t: Tape, skipped: int, label: str) -> None:
        self.t = t
        self.skipped = skipped
        self.label = label
        self.before: Moment | None = None

    def leaving(self, copy: int) -> None:
        """Called in backward when a unit is done, last one first."""
        if copy == 3:
            self.before = self.t.ledger.snapshot()
        elif copy == 2 and self.skipped and self.before is not None:
            self.t.ledger.repeat(self.t.ledger.difference(self.before), self.skipped, self.label)


def _boundary(t: Tape, hidden: Tensor, label: str, gap: _Gap | None, copy: int) -> Tensor:
    """A view with a node that tells when backward has passed a layer."""
    inside = hidden.view()

    def apply(gradient: Tensor) -> Tensor:
        t.ledger.settle()
        t.ledger.mark(label)
        if gap is not None:
            gap.leaving(copy)
        return gradient.view()

    t.record(label, [inside], [hidden], [], apply)
    return inside


def _checkpointed(t: Tape, layer: Module, hidden: Tensor, call: Call, label: str) -> Tensor:
    """Keep only the layer's input; run it again when its gradient arrives.

    Source: torch 2.13 utils/checkpoint.py, non-reentrant: the first run makes nodes whose saved tensors are dropped.
    """
    with t.not_saving():
        out = layer(t, hidden, call)
    if out.node is None:
        return out
    number = t.layer
    kept = hidden.view()
    kept.node = None
    edge = hidden.edge

    def apply(arrived: list[Tensor]) -> Tensor | None:
        outside_cache, t.cast_cache = t.cast_cache, {}
        outside_layer, t.layer = t.layer, number
        outside_section, t.section = t.section, "activations"
        t.ledger.where = f"{label}: recomputed"
        received: list[Tensor] = []
        inside = kept.view()
        inside.node = Node(1 << 62, "layer input", "activations", (), [], received.append)
        again = layer(t, inside, call)
        t.cast_cache = outside_cache
        result = Tensor(None, again.numel, again.dtype, again.width, again.node)
        del again, inside
        t.section = outside_section
        t.backward(result, arrived.pop())
        t.layer = outside_layer
        return received[0] if received and edge is not None else None

    arguments = [x for x in call.tensors() if x is not None]
    t.record(label, [out], [hidden], [kept, *arguments], apply)
    if out.node is not None:
        out.node.owning = True
    return out

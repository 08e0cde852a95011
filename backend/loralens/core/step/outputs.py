"""A training loop that keeps what the model returned: `out = model(...)`, with `out` still named in backward and step.

The name is bound anew when the next forward pass is over, so one output more is alive during that pass.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.question.losses import LOSS_TABLE
from loralens.core.question.versions import names_library
from loralens.core.tape import ops
from loralens.core.tape.size import TOKENS, ZERO

if TYPE_CHECKING:
    from loralens.core.architecture.causal import Root
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.ledger import Entry, Ledger, Moment
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

BEFORE = "output of the step before"


def bound(tape: Tape, root: Root, recipe: Recipe) -> list[Tensor] | None:
    """What the loop's name for the output holds when forward begins: with a kept list of logits, the list before; None: no such name."""
    if root.part is not None and not root.part.last:
        return None  # hidden states, which the next stage has been sent
    if not LOSS_TABLE[recipe.loss].kept or root.task is not None or root.own_loss:
        return [] if recipe.keeps_outputs else None
    width = root.head.out_features
    return [tape.new(TOKENS * width, "float32", width, BEFORE, "logits")]


def returned(tape: Tape, recipe: Recipe, loss: Tensor) -> None:
    """The model has returned: its output ends, unless the loop keeps it.

    Where accelerate wraps the model, mixed precision makes 16-bit logits float32 (accelerate 1.15 utils/operations.py,
    `ConvertOutputsToFp32`); a cache stays as it is.
    """
    cache, tape.handed.cache = tape.handed.cache or [], None
    if tape.handed.outputs is None:
        tape.end_in_layers(cache)
        return
    if names_library(recipe, "accelerate") and recipe.autocast:
        tape.handed.outputs = [
            ops.cast(tape, tensor, "float32", "logits, returned in float32") for tensor in tape.handed.outputs
        ]
        tape.ledger.settle()
    tape.handed.outputs += [tensor for tensor, _ in cache]
    tape.handed.returned(loss)


def graph_ends(tape: Tape) -> None:
    """The graph goes, and with it what its functions hold as attributes, in the layers that were not walked too."""
    while tape.attributes:
        found, layer = tape.attributes.pop()
        node = found()  # None: of a graph that went before
        if node is not None:
            before = tape.ledger.snapshot()
            node.kept = None
            tape.ledger.apply(tape.ledger.difference(before), tape.stands_for.get(layer, 0))


def alive_in_next_forward(ledger: Ledger, tape: Tape) -> None:
    """At the end of a step: what its output holds, the layers that were not walked included, is alive in the next forward pass."""
    entries = {
        (tensor.storage.category, tensor.storage.label): tensor.storage
        for tensor in tape.handed.outputs or ()
        if tensor.storage is not None
    }
    held: dict[Entry, Size] = {}
    for category, label in entries:
        key = (category, BEFORE)
        held[key] = held.get(key, ZERO) + ledger.entries.get((category, label), ZERO)

    def with_it(moment: Moment) -> Moment:
        total = moment.total
        for size in held.values():
            total = total + size
        return replace(moment, total=total, entries={**moment.entries, **held})

    ledger.moments = [with_it(moment) if moment.phase == "forward" else moment for moment in ledger.moments]
    ledger.points = [
        replace(point, first=with_it(point.first), last=with_it(point.last)) if point.phase == "forward" else point
        for point in ledger.points
    ]

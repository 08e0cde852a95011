"""What a walk of one rank's part has to be told afterwards: micro batches under way beside it, and the whole length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loralens.core.partition.context import of_whole_length, widened
from loralens.core.partition.pipeline import FIRST, made_before, message, splits, stages, under_way
from loralens.core.partition.schedules import schedule_of
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.halves import OF_ENDS, OF_LAYERS
from loralens.core.tape.size import TOKENS, ZERO, Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from loralens.core.partition.schedules import Waiting
    from loralens.core.question.recipe import Recipe
    from loralens.core.step.step import Step
    from loralens.core.tape.ledger import Entry, Moment

UNDER_WAY = ("activations", "micro-batches under way")
INPUTS = TOKENS * 16  # token ids and labels of the batch, cut on every rank
RECEIVED = ("activations", "buffers for what other stages send")
OWN_PART = ("temporaries", "gradients that are partial sums: this rank's part")
KEPT = ("activations", "logits")
HELD_BY_PASSES = (*KEPT, "temporaries")
OPTIMIZER_STEP = "optimizer step"
SECOND_HALF = "weights' half of backward"


def of_rank(step: Step, recipe: Recipe, hidden: int) -> Step:
    """The step as it stands beside the micro batches under way, in the whole sequence's length. `hidden`: the model's width."""
    p = recipe.parallelism
    if p.tp > 1 and p.sequence_parallel:
        _sum_norms(step, recipe)
    if p.tp > 1 and p.data_parallel == 1 and p.strategy != "megatron":
        _take_own_part(step, norms=p.sequence_parallel, cut=p.vocabulary_parallel)
    if p.pp > 1:
        _beside(step, recipe, hidden)
    if p.cp > 1:
        _lengthen(step, p.cp)
    return step


def _sum_norms(step: Step, recipe: Recipe) -> None:
    """Each rank's gradients of the norms are of its part of the sequence."""
    p = recipe.parallelism
    phase = "optimizer" if p.data_parallel == 1 else "backward"
    for item in step.held:
        parameter = item.parameter
        if parameter.trainable and len(parameter.shape) == 1:
            size = parameter.numel * ITEM_BYTES[p.gather_dtype or parameter.dtype]
            step.traffic.add(phase, "all_reduce", "tp", size, item.count, once=p.data_parallel == 1)


def _take_own_part(step: Step, *, norms: bool, cut: bool) -> None:
    """The optimizer asks for its part of gradients that are partial sums: the embedding's, and of some the norms'."""
    partial = ZERO
    for item in step.held:
        parameter = item.parameter
        if parameter.trainable and ((norms and len(parameter.shape) == 1) or (cut and "embed" in parameter.label)):
            partial = partial + parameter.bytes * item.count

    def add(moment: Moment) -> None:
        moment.entries[OWN_PART] = partial
        moment.total = moment.total + partial

    _change(step, add, ("optimizer",))


def _beside(step: Step, recipe: Recipe, hidden: int) -> None:
    p, micro_batches = recipe.parallelism, recipe.gradient_accumulation_steps
    rank = p.pipeline_rank or 0
    own, last = schedule_of(p).pieces(p, rank), stages(p) - 1
    sent = message(recipe, hidden)
    forward, backward = len(own) - (FIRST in own), len(own) - (last in own)
    handed_on = sum(piece + 1 in own for piece in own)  # between two pieces of one rank nothing is sent
    for kind in ("receive", "send"):
        step.traffic.add("pipeline", kind, "pp", sent, forward + backward - 2 * handed_on)
    if p.schedule == "sequential":  # what a card before or after sends is made when it is sent
        return
    split = splits(recipe)
    many = under_way(p, micro_batches, rank)
    # every stage has buffers for all micro batches, and the last gradient that it sends back
    waiting = sent * (forward * (micro_batches + (not split)) + backward * (micro_batches - 1))
    waiting = waiting + INPUTS * max(0, micro_batches - max(1, many // len(own)))
    if split:
        _begin_second_half(step, made_before=bool(made_before(recipe)))
    if p.strategy == "megatron":  # makes them when they are needed
        waiting = ZERO
    else:  # the gradient that one piece hands another of the rank is the input's own
        kept = sent * ((forward + backward + (forward - handed_on if split else 0)) * micro_batches)
        _change(step, lambda moment: _book(moment, RECEIVED, kept), ("optimizer",))
    left = _Left.of(step, len(own))
    _add_instants(
        step,
        [
            (left.beside(each, has_last=last in own, split=split), waiting + sent * each.sent_back)
            for each in schedule_of(p).waiting(p, micro_batches, rank)
        ],
    )


def _book(moment: Moment, key: Entry, size: Size) -> None:
    if any(size):
        moment.entries[key] = moment.entries.get(key, ZERO) + size
        moment.total = moment.total + size


def _add_instants(step: Step, found: list[tuple[Size, Size]]) -> None:
    """What is held beside the walked micro batch, at each instant that can be the fullest; the timeline has the first one's."""

    def added(moment: Moment, left: Size, buffers: Size) -> Moment:
        new = replace(moment, entries=dict(moment.entries))
        for key, size in ((UNDER_WAY, left), (RECEIVED, buffers)):
            _book(new, key, size)
        return new

    def of(moment: Moment) -> list[Moment]:
        return [added(moment, *each) for each in found] if moment.phase in ("forward", "backward") else [moment]

    ledger = step.ledger
    ledger.moments = [new for moment in ledger.moments for new in of(moment)]
    for point in ledger.points:
        point.first, point.last = of(point.first)[0], of(point.last)[0]


@dataclass(frozen=True, slots=True)
class _Left:
    """What one micro batch leaves in a rank's pieces: a forward pass, and the first half of a backward."""

    pieces: int
    layers: Size  # of all pieces
    head: Size  # of the last piece of all besides
    for_layers: Size  # gradients that wait
    for_head: Size

    @staticmethod
    def of(step: Step, pieces: int) -> _Left:
        """Read off the walk, which has passed one micro batch through all pieces."""
        forward, backward = (
            next(point.last.entries for point in reversed(step.ledger.points) if point.phase == phase)
            for phase in ("forward", "backward")
        )
        layers, head = (
            sum((size for (category, _), size in forward.items() if category == kept), ZERO) for kept in KEPT
        )
        waiting = [backward.get(("temporaries", label), ZERO) for label in (OF_LAYERS, OF_ENDS)]
        return _Left(pieces, layers, head, *waiting)

    def beside(self, at: Waiting, *, has_last: bool, split: bool) -> Size:
        """What waits beside the walk's own: a forward pass of each piece, or when backward is split a first half of each."""
        passes = max(0, at.whole + at.halves - self.pieces)
        kept = self.layers * passes // self.pieces + self.head * max(0, at.last_whole - (has_last and not split))
        if not split:
            return kept
        halves = self.for_layers * (at.halves - self.pieces)
        return kept + halves // self.pieces + self.for_head * max(0, at.last_halves - has_last)


def _begin_second_half(step: Step, *, made_before: bool) -> None:
    """A layer's weights get their gradients one after another, and are still given one when the next is made.

    Meanwhile what waited for those before has gone: of a layer about half (assumption). At the optimizer's step nothing waits.
    Source: torch 2.13 distributed/pipelining/_backward.py, `stage_backward_weight` (`dweights` names the last group's).
    """
    last = next(point.last for point in reversed(step.ledger.points) if point.phase == "backward")
    trained = [item.parameter for item in step.held if item.parameter.trainable]
    matrices = sorted(
        (parameter.bytes for parameter in trained if ".*." in parameter.label), key=lambda size: size.packed
    )
    if made_before and matrices:
        begun = replace(last, label=SECOND_HALF, entries=dict(last.entries))
        _book(begun, ("temporaries", SECOND_HALF), sum(matrices[-2:], ZERO))
        _book(
            begun,
            ("temporaries", OF_LAYERS),
            begun.entries.get(("temporaries", OF_LAYERS), ZERO) * -1 // (2 * step.layers),
        )
        step.ledger.keep(begun)
    start = next(point.first.entries for point in step.ledger.points if point.phase == "forward")

    def end(moment: Moment) -> None:
        for key in [key for key in moment.entries if key[0] in HELD_BY_PASSES and key not in start]:
            if key[1] != OPTIMIZER_STEP:
                moment.total = moment.total - moment.entries.pop(key)

    _change(step, end, ("optimizer",))


def _lengthen(step: Step, parts: int) -> None:
    def change(moment: Moment) -> None:
        moment.entries = {key: of_whole_length(size, parts) for key, size in moment.entries.items()}
        moment.total = ZERO
        for size in moment.entries.values():
            moment.total = moment.total + size

    _change(step, change)
    widened(step.validity, parts)
    sums = step.traffic.sums
    step.traffic.sums = {key: (calls, of_whole_length(size, parts)) for key, (calls, size) in sums.items()}


def _change(step: Step, change: Callable[[Moment], None], phases: tuple[str, ...] = ()) -> None:
    """Change every kept moment once: points share some of them."""
    ledger = step.ledger
    moments = [*ledger.moments, *(moment for point in ledger.points for moment in (point.first, point.last))]
    for moment in {id(moment): moment for moment in moments}.values():
        if not phases or moment.phase in phases:
            change(moment)

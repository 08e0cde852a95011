"""What a walk of one rank's part has to be told afterwards: micro batches under way beside it, and the whole length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.partition.context import of_whole_length, widened
from loralens.core.partition.pipeline import message, under_way
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape.size import TOKENS, ZERO, Size

if TYPE_CHECKING:
    from collections.abc import Callable

    from loralens.core.question.recipe import Recipe
    from loralens.core.step.step import Step
    from loralens.core.tape.ledger import Moment

UNDER_WAY = ("activations", "micro batches under way")
INPUTS = TOKENS * 16  # token ids and labels of the batch, cut on every rank
RECEIVED = ("activations", "buffers for what other stages send")
OWN_PART = ("temporaries", "gradients that are partial sums: this rank's part")


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
    many = under_way(p, micro_batches, rank)
    left = (
        _left_by_forward(step, logits=p.schedule != "interleaved") * max(0, many - p.stages_per_gpu) // p.stages_per_gpu
    )
    sent = message(recipe, hidden)
    forward, backward = p.stages_per_gpu - (rank == 0), p.stages_per_gpu - (rank == p.pp - 1)
    # every stage has buffers for all micro batches, and the last gradient that it sends back
    waiting = sent * (forward * (micro_batches + 1) + backward * (micro_batches - 1))
    if (
        p.schedule == "sequential" or p.strategy == "megatron"
    ):  # what a card before or after sends is made when it is sent
        waiting = ZERO
    else:
        waiting = waiting + INPUTS * max(0, micro_batches - max(1, many // p.stages_per_gpu))
    for kind, pieces in (("receive", forward + backward), ("send", forward + backward)):
        step.traffic.add("pipeline", kind, "pp", sent, pieces)

    def add(moment: Moment) -> None:
        for key, size in ((UNDER_WAY, left), (RECEIVED, waiting)):
            if any(size):
                moment.entries[key] = moment.entries.get(key, ZERO) + size
                moment.total = moment.total + size

    _change(step, add, ("forward", "backward"))


def _left_by_forward(step: Step, *, logits: bool) -> Size:
    """What a micro batch holds between its forward and its backward; `logits`: also where its last layer is not the last stage's.

    An interleaved schedule runs the last stage's backward right behind its forward.
    """
    end = next(point.last for point in reversed(step.ledger.points) if point.phase == "forward")
    left = ZERO
    for (category, _), size in end.entries.items():
        if category == "activations" or (category == "logits" and logits):
            left = left + size
    return left


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

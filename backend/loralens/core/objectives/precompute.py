"""The pass that scores a whole data set with the reference before training: the model alone, with no states and no gradients.

Source: TRL 1.16.0 trainer/dpo_trainer.py and kto_trainer.py, `_precompute_ref_logps`, `compute_ref_log_probs`:
`precompute_ref_batch_size` pairs (KTO: rows) at a time, none: `per_device_train_batch_size`; before accelerate has wrapped the
model, so that what it returns stays in 16 bits, and before the optimizer is made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.tiled import log_probabilities as in_tiles
from loralens.core.objectives.apart import pinned_length
from loralens.core.objectives.logprobs import preference_inputs, selected, whole
from loralens.core.question.objectives import DIVIDED
from loralens.core.tape import ops
from loralens.core.tape.ledger import Ledger, Moment, Storage, TimelinePoint
from loralens.core.tape.running import Kernels
from loralens.core.tape.size import BATCH, TOKENS, Size, at_rank
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

if TYPE_CHECKING:
    from loralens.core.objectives.passes import Passes
    from loralens.core.question.recipe import Recipe

PRECOMPUTE: Final = "precompute"
STANDING: Final = ("weights", "adapter")
NOT_COUNTED: Final = "precompute: not counted where weights are divided; FSDP divides them after it, so that each GPU scores with the whole model"


def precomputed(passes: Passes, rows_each: int) -> None:
    """The pass, as a phase before the others. `rows_each`: rows that the trainer counts as one."""
    if passes.recipe.parallelism.strategy in DIVIDED:
        return
    asked, main = passes.recipe.objective.precompute_batch_size, passes.tape.ledger
    if asked is None:  # with the learner's batch it grows
        _keep(main, _walk(passes, passes.recipe, passes.validity))
        return
    length, rows = pinned_length(passes), asked * rows_each
    walked = replace(passes.recipe, micro_batch_size=rows)
    _keep(main, [_at(moment, rows, length) for moment in _walk(passes, walked, Validity(walked))])


def _walk(passes: Passes, recipe: Recipe, validity: Validity) -> list[Moment]:
    ledger = Ledger()
    tape = Tape(ledger, autocast=recipe.autocast, kernels=Kernels(recipe.fused_kernels), validity=validity)
    ledger.enter(PRECOMPUTE)
    batch = [Storage(ledger, size, "activations", name) for name, size in preference_inputs(recipe.padded)]
    inside = replace(passes, tape=tape, recipe=recipe, validity=validity)
    if recipe.loss == "fused_head":
        tape.end(inside.reference("adapter", in_tiles))
    else:
        tape.section = "logits"
        logits = inside.reference("adapter", whole)
        assert isinstance(logits.width, int)
        rows = TOKENS - BATCH
        tape.end(selected(tape, ops.cut(tape, logits, "logits before the last", numel=rows * logits.width), rows))
    ledger.settle()
    tape.end(*batch)
    return ledger.moments


def _at(moment: Moment, rows: int, length: int) -> Moment:
    entries = {entry: at_rank(size, rows, length) for entry, size in moment.entries.items()}
    return replace(moment, total=at_rank(moment.total, rows, length), entries=entries)


def _keep(main: Ledger, moments: list[Moment]) -> None:
    standing = {entry: size for entry, size in main.entries.items() if entry[0] in STANDING}
    for moment in moments:
        entries = standing | moment.entries
        main.keep(Moment(PRECOMPUTE, moment.label, _sum(entries), entries))
    here = Moment(PRECOMPUTE, PRECOMPUTE, _sum(standing), standing)
    main.points.append(TimelinePoint(PRECOMPUTE, PRECOMPUTE, 1, here, here))


def _sum(entries: dict[tuple[str, str], Size]) -> Size:
    sizes = list(entries.values())
    total = sizes[0]
    for size in sizes[1:]:
        total = total + size
    return total

"""What makes a step quicker and asks for nothing but memory that is there: said whether it fits or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.answer.pace import pace_on
from loralens.core.errors import LoraLensError
from loralens.planner.beside import fits_card
from loralens.planner.changes import CHANGES, COMPUTE_DTYPE, Change

if TYPE_CHECKING:
    from loralens.core.answer.pace import Pace
    from loralens.core.catalogue import Gpu
    from loralens.planner.question import Question
    from loralens.planner.shapes import QuickerChange

WORTH_SAYING: Final = 0.02
"""A change that saves less of the time is not shown."""
UNCHECKPOINTED: Final = Change(
    "gradient_checkpointing",
    lambda q: False if q.recipe.gradient_checkpointing and q.recipe.checkpoint_offload == "none" else None,
    "none",
    "The layers' activations fit without gradient checkpointing: nothing is computed twice.",
    "checkpointing_off",
)
QUICKER: Final = (
    *(change for change in CHANGES if change.field in (COMPUTE_DTYPE, "fused_kernels", "attention")),
    UNCHECKPOINTED,
)


def quicker(question: Question, device: Gpu) -> list[QuickerChange]:
    """Changes with which a token takes less time and the step fits, or needs no more than it does.

    The compute dtype of 4-bit weights comes first, the others by what they save: float32 is seldom chosen there, and TRL takes it
    where nobody says otherwise.
    """
    now = _pace(question, device)
    before = question.estimate()
    if now is None or not before.holds_media:
        return []
    rows, fits = [], fits_card(question, device)
    for change in QUICKER:
        value = change.to(question)
        if value is None:
            continue
        changed = question.with_(change.field, value)
        then = _pace(changed, device)
        if then is None or then.step.seconds > (1 - WORTH_SAYING) * now.step.seconds:
            continue
        after = changed.estimate()
        needed = after.overhead.needed[1]
        if needed > max(device.memory_bytes, before.overhead.needed[1]) or (fits and not fits_card(changed, device)):
            continue
        row: QuickerChange = {
            "field": change.field,
            "from": question.get(change.field),
            "to": value,
            "why": {"key": change.key, "en": change.en},
            "time_ratio": now.tokens_per_second / then.tokens_per_second,
            "saves_seconds": now.step.seconds - then.step.seconds,
            "saves_bytes": before.allocated_bytes - after.allocated_bytes,
            "needed_bytes": needed,
        }
        rows.append(row)
    return sorted(rows, key=lambda row: (row["field"] != COMPUTE_DTYPE, row["time_ratio"]))


def _pace(question: Question, device: Gpu) -> Pace | None:
    try:
        return pace_on(question.model, question.method, question.recipe, device)
    except LoraLensError:  # this combination is not modelled or not allowed: then it is no advice
        return None

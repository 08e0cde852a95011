"""What no saving of memory mends: a machine of which nobody says what it has, and a sequence too short for its pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.errors import LoraLensError
from loralens.core.question.media import NAMES
from loralens.planner.changes import Change

if TYPE_CHECKING:
    from loralens.planner.question import Question

Way = tuple[Change, Any]
GIB: Final = 2**30
ROOM: Final = 256
"""Tokens: a sequence that is made longer for its pictures ends at a multiple of so many, with text beside them (assumption)."""
LEAST_SIDE: Final = 56
"""Pixels; a smaller picture is not offered (assumption)."""


def _nothing(_: Question) -> None:
    """These are no savings, so their values are not found by one."""


MACHINE: Final = Change("host_memory", _nothing, "none",
    "The run needs a lot of host memory, and how much the machine has is not given: give it, and it is judged. With this much it is safe.")  # fmt: skip
LENGTH: Final = Change("sequence_length", _nothing, "time",
    "The sequence is too short for the {media} of a sample, and training stops with an error: this length has room for it all, and "
    "for some text.", "sequence_room")  # fmt: skip
FEWER: Final = tuple(
    Change(field, _nothing, "quality", "With this much, the sample fits the sequence as it is.", "fewer_media")
    for field in ("images", "image_size", "video_frames", "audio_seconds")
)


def mends(question: Question) -> list[Way]:
    """Ways to mend one such thing, each enough for it; the first is the mildest. Empty where nothing of the kind is wrong."""
    found = question.estimate()
    if not found.holds_media:
        least = found.plan.least_length
        longer = (_naming_media(question), -(-(least + 1) // ROOM) * ROOM)
        fewer = ((change, _less(question, change.field)) for change in FEWER if change.field in found.plan.media)
        return [longer, *((change, value) for change, value in fewer if value is not None)]
    if found.host.much_unsaid(found.recipe):
        return [(MACHINE, float(-(-found.host.needed[1] // GIB)))]
    return []


def mend(question: Question) -> tuple[Question, list[Way]]:
    """The question with the mildest way taken of everything that is wrong, and the ways."""
    taken: list[Way] = []
    while ways := mends(question):
        change, value = ways[0]
        taken.append((change, value))
        question = question.with_(change.field, value)
    return question, taken


def _naming_media(question: Question) -> Change:
    """The longer sequence, and for which media that a sample has."""
    taken = question.estimate().plan.media
    *others, last = (name for word, name in NAMES.items() if word in taken and question.get(word))
    return replace(LENGTH, en=LENGTH.en.format(media=f"{', '.join(others)} and {last}" if others else last))


def _less(question: Question, field: str) -> Any:
    """The value, halved until the sequence holds the pictures; None where no such value does."""
    value = question.get(field)
    while (value := _halved(field, value)) is not None:
        try:
            if question.with_(field, value).estimate().holds_media:
                return value
        except LoraLensError:  # the processor refuses it
            return None
    return None


def _halved(field: str, value: Any) -> Any:
    if not value:
        return None
    if field == "image_size":
        sides = [side // 2 for side in value]
        return sides if min(sides) >= LEAST_SIDE else None
    return value // 2 or None

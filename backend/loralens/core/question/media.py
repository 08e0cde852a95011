"""The words of pictures, video and sound: what a sample holds beside its text. One row each, as in `recipe`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from loralens.core.question.kinds import Choice, Kind, Maybe, Number, Place, Schema, Whole
from loralens.core.question.needs import PICTURES
from loralens.core.question.words import word

MAX_SIDE: Final = 65_536
NO_TOWER: Final = "none"
MEDIA_WORDS: Final = ("images", "image_size", "video_frames", "audio_seconds", "freeze_tower")
NAMES: Final = {"images": "pictures", "video_frames": "video", "audio_seconds": "sound"}
"""What each is to a reader, where a sample has it."""
FROZEN: Final = (NO_TOWER, "tower", "tower+projector")


@dataclass(frozen=True)
class Extent(Kind):
    """Height and width in pixels; one number is both."""

    form = "extent"

    def read(self, value: Any, at: Place) -> tuple[int, int]:
        """A pair of whole numbers."""
        value = self.from_text(value) if isinstance(value, str) and len(value) < 40 else value
        sides = value if isinstance(value, (list, tuple)) else (value, value)
        whole = all(isinstance(side, int) and not isinstance(side, bool) and 0 < side <= MAX_SIDE for side in sides)
        if len(sides) != 2 or not whole:
            raise at.wrong(f"height and width in pixels, from 1 to {MAX_SIDE}", value, f"try {at.name}=448x672")
        return sides[0], sides[1]

    def shown(self, value: Any) -> Any:
        """A list."""
        return list(value) if isinstance(value, tuple) else value

    def from_text(self, text: str) -> Any:
        """`448x672`, `448,672` or one number."""
        parts = [part.strip() for part in text.lower().replace("x", ",").split(",")]
        numbers = [int(part) if part.isdecimal() and len(part) < 10 else part for part in parts]
        return numbers[0] if len(numbers) == 1 else numbers

    def schema(self) -> Schema:
        """A list of two, or one number."""
        side = {"type": "integer", "minimum": 1, "maximum": MAX_SIDE}
        both = {"type": "array", "items": side, "minItems": 2, "maxItems": 2}
        return {"anyOf": [both, side], "minimum": 1, "maximum": MAX_SIDE}


images: Final = word(0, Whole(0, 1_000), "Pictures per sample; their tokens are part of sequence_length.")
image_size: Final = word(
    None,
    Maybe(Extent()),
    "Height and width of a picture or frame as the processor gets it, 448x672; none: the tower's own, where it has one.",
    needs=(PICTURES,),
)
video_frames: Final = word(0, Whole(0, 100_000), "Frames of a sample's video, after sampling; 0: no video.")
audio_seconds: Final = word(0.0, Number(0, 86_400), "Seconds of sound per sample; 0: none.")
freeze_tower: Final = word(
    NO_TOWER,
    Choice(FROZEN),
    "What besides the language model is never trained and takes no adapter; none: the method alone decides.",
)

"""GOT-OCR 2: SAM's tower, sixteen patches into one token by two convolutions, and Qwen2's layers.

Source: transformers 5.23, models/got_ocr2/{modeling,processing,image_processing}_got_ocr2.py (a picture is not cut into tiles, the
processor's default).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.families.projected import Projected
from loralens.core.architecture.families.sam_attention import Seen
from loralens.core.architecture.families.sam_vision import SamTower
from loralens.core.architecture.media import FIXED_SIZE
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import ops

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.config import Config
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

NOT_CUT: Final = (
    "a picture is one picture, as the processor has it: with crop_to_patches it is up to 12 tiles and a thumbnail"
)


class OcrProjector(Module):
    """Two convolutions that halve both sides, and a matrix."""

    def __init__(self, inputs: int, hidden: int) -> None:
        self.conv_upsampler1 = Convolution(inputs, 2 * inputs, 3, 3, name="projector: halved", bias=False)
        self.conv_upsampler2 = Convolution(2 * inputs, hidden, 3, 3, name="projector: halved again", bias=False)
        self.multimodal_projector = Linear(hidden, hidden, True, name="projector")

    def forward(self, t: Tape, x: Tensor, half: Size, quarter: Size) -> Tensor:
        """Shapes: (places, inputs) to (quarter, hidden); `half` and `quarter`: places once both sides are so long."""
        x = self.conv_upsampler1(t, x, half)
        x = self.conv_upsampler2(t, x, quarter)
        x = self.multimodal_projector(t, ops.copy(t, x, "projector: by place"))
        return x


class GotOcr2Media(Projected):
    """Pictures of 1024 pixels, 256 tokens each."""

    words = FIXED_SIZE
    usual = "got_ocr2_vision"

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """Its own tower."""
        v = outer.nested("vision_config")
        return v is not None and v.text("model_type", "") in ("", cls.usual)  # the published file leaves it empty

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower."""
        return SamTower(v, wide=3072)

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """To the language model's width."""
        return OcrProjector(inputs, hidden)

    def tokens(self) -> int:
        """Of a picture."""
        return halved(halved(self._vision.grid)) ** 2

    def buffer_bytes(self) -> int:
        """None."""
        return 0

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """Of the neck."""
        pixels = ops.cast(t, pixels, self._vision.patch_embed.projection.weight.dtype, "pictures in the weights' dtype")
        seen = Seen(self._vision.grid, several)
        last = self._vision(t, pixels, call, images, seen, f"{self.below}{self.tower}")
        held.append(last)
        half = halved(self._vision.grid) ** 2
        out: Tensor = self._projector(t, last, images * half, images * self.tokens())
        return out

    def assumptions(self, recipe: Recipe) -> list[str]:
        """And that pictures are not cut."""
        return [*super().assumptions(recipe), *([NOT_CUT] if recipe.images else [])]


def halved(side: int) -> int:
    """Places that a convolution of three leaves, two steps at a time."""
    return -(-side // 2)

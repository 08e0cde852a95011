"""DeepSeek-VL: pictures of one size in SigLIP's tower, two layers, and Llama's layers.

Source: transformers 5.23, models/deepseek_vl/{modeling,processing,image_processing_pil}_deepseek_vl.py (a picture is padded to a square).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.families.projected import Projected
from loralens.core.architecture.media import FIXED_SIZE
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import ops

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.config import Config
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape


class Aligner(Module):
    """Two layers."""

    def __init__(self, inputs: int, hidden: int) -> None:
        self.linear1 = Linear(inputs, hidden, True, name="projector: first")
        self.linear2 = Linear(hidden, hidden, True, name="projector: second")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows, hidden)."""
        x = self.linear1(t, x)
        x = ops.gelu(t, x, "projector: activated")
        x = self.linear2(t, x)
        return x


class DeepseekVLMedia(Projected):
    """Every patch is a token."""

    words = FIXED_SIZE
    tower, projector = "vision_model", "aligner"

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """SigLIP is."""
        v = outer.nested("vision_config")
        return v is not None and v.text("model_type", cls.usual) == cls.usual

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower, under its own name."""
        found = super().seen(outer, v)
        found.name = self.tower
        return found

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """To the language model's width."""
        return Aligner(inputs, hidden)

    def tokens(self) -> int:
        """A patch each."""
        found: int = self._vision.tokens
        return found

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """Of the last layer, behind its norm."""
        (last,) = self._vision(t, pixels, call, images, several)
        held.append(last)
        out: Tensor = self._projector(t, last)
        return out

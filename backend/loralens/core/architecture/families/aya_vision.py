"""Aya Vision: pictures in tiles and as a whole, SigLIP's last states, four patches in one token behind a gated layer.

Source: transformers 5.23, models/aya_vision/modeling_aya_vision.py, models/got_ocr2/image_processing_got_ocr2.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.families.internvl import MOST_TILES, canvas
from loralens.core.architecture.families.projected import Projected
from loralens.core.architecture.media import missing_size
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import ops

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.config import Config
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape


class AyaProjector(Module):
    """Neighbouring patches side by side, a norm, and two layers of which the first makes the second's gate too."""

    def __init__(self, inputs: int, wide: int, hidden: int) -> None:
        self.layernorm = LayerNorm(inputs)
        self.linear_1 = Linear(inputs, wide, True, name="projector: first")
        self.linear_2 = Linear(wide // 2, hidden, True, name="projector: second")
        self._inputs, self._half = inputs, wide // 2

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (patches, hidden of the tower) to (tokens, hidden)."""
        x = ops.copy(t, x, "tower's states, shuffled").view(self._inputs)
        x = self.layernorm(t, x)
        both = self.linear_1(t, x)
        x, gate = ops.split(t, both, [self._half, self._half], "projector: value and gate")
        x = ops.mul(t, activation(t, gate, "silu", "projector: activated"), x, "projector: product")
        out: Tensor = self.linear_2(t, x)
        return out


class AyaVisionMedia(Projected):
    """Tiles of the tower's size."""

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """Whose last layer is read, whole."""
        last = outer.entries.get("vision_feature_layer", -1) == -1
        return last and super().knows(outer) and outer.text("vision_feature_select_strategy", "full") == "full"

    def feature_layer(self, outer: Config) -> int | None:
        """The last one's states, before the norm."""
        return -1

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """As many patches in a token as the factor's square."""
        self._shuffle = outer.integer("downsample_factor", default=2, high=1_024) ** 2
        wide = outer.integer("alignment_intermediate_size", default=hidden)
        return AyaProjector(inputs * self._shuffle, wide, hidden)

    def tokens(self) -> int:
        """Of one tile."""
        found: int = self._vision.tokens // self._shuffle
        return found

    def tiles(self, recipe: Recipe) -> int:
        """The canvas whose shape is nearest, and a thumbnail where it has more than one tile."""
        if recipe.image_size is None:
            raise missing_size("364x728")
        across, down = canvas(recipe.image_size, (self._vision.side, self._vision.side), MOST_TILES)
        return across * down + (across * down > 1)

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """Of the last layer."""
        taken, *rest = self._vision(t, pixels, call, images, several)
        held += [taken, *rest]
        out: Tensor = self._projector(t, taken)
        return out

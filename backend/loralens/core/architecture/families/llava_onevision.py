"""LLaVA-OneVision: LLaVA-NeXT's tiles, of which many are sampled down; each of several pictures is one tile.

Source: transformers 5.23, models/llava_onevision/{modeling,configuration,image_processing_pil}_llava_onevision.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.families.llava_next import LlavaNextMedia
from loralens.core.architecture.media import Pictures
from loralens.core.errors import InvalidInput
from loralens.core.tape.selecting import interpolated
from loralens.core.tape.size import BATCH

if TYPE_CHECKING:
    from loralens.core.architecture.config import Config
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape

SIDES: Final = range(384, 2305, 384)
SLACK: Final = 1.1  # times as many patches along a side as allowed: fewer stay as they are


class LlavaOnevisionMedia(LlavaNextMedia):
    """SigLIP's last states, without a norm; a picture alone is cut into tiles."""

    usual = "siglip_vision_model"
    usual_pinpoints = tuple((high, wide) for high in SIDES for wide in SIDES)

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        defaults = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
        super().__init__(root, outer.over({}, defaults))
        ratio = outer.text("vision_aspect_ratio", "anyres_max_9")
        number = ratio.removeprefix("anyres_max_")
        if not number.isdecimal() or not 0 < int(number) <= 10_000:
            raise InvalidInput(
                f"config.vision_aspect_ratio must be anyres_max_ and a number, got {ratio!r:.60}",
                field="config.vision_aspect_ratio",
                hint="try anyres_max_9",
            )
        self._most = int(number) * self._per_side**2

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """One layer's states are read."""
        return super().knows(outer.over({}, {"vision_feature_layer": -1}))

    def tiles(self, recipe: Recipe) -> int:
        """One for each of several pictures."""
        return super().tiles(recipe) if recipe.images == 1 else 1

    def sampled(self, recipe: Recipe) -> tuple[int, int]:
        """Rows and columns of patches that are left of the tiles'."""
        high, wide = self.unpadded(recipe)
        ratio = math.sqrt(high * wide / self._most)
        return (int(high // ratio), int(wide // ratio)) if ratio > SLACK else (high, wide)

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """The whole picture's tokens, and one behind each row of the tiles, or behind the picture."""
        found = super().pictures(recipe)
        if found is None:
            return None
        if recipe.images > 1:
            return replace(found, tokens=recipe.images * (self.tokens() + 1))
        high, wide = self.sampled(recipe)
        return replace(found, tokens=self.tokens() + high * (wide + 1))

    def packed(self, t: Tape, found: Tensor, recipe: Recipe, width: int) -> Tensor:
        """Several pictures have a vector at their ends alone."""
        if recipe.images == 1:
            return super().packed(t, found, recipe, width)
        return self.ended(t, found, 1, recipe, width)

    def fitted(self, t: Tape, laid: Tensor, recipe: Recipe, width: int) -> tuple[Tensor, int]:
        """Sampled down where they are too many."""
        sides, left = self.unpadded(recipe), self.sampled(recipe)
        if left != sides:
            laid = interpolated(t, laid, BATCH * (left[0] * left[1] * width), "tokens of tiles, sampled")
        return laid, left[0]

"""LLaVA-NeXT: a picture in tiles of the tower's size beside the whole, without the tiles' padding, a vector behind each row.

Source: transformers 5.23, models/llava_next/modeling_llava_next.py (`pack_image_features`, `unpad_image`) and
image_processing_utils.py (`select_best_resolution`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.config import Config
from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.families.projected import LlavaMedia
from loralens.core.architecture.families.qwen_vision import joined, split_up
from loralens.core.architecture.media import Media, Pictures, missing_size
from loralens.core.errors import InvalidInput
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import BATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


class LlavaNextMedia(LlavaMedia):
    """LLaVA's tower and projector on tiles."""

    words = Media.words
    usual_pinpoints: Sequence[tuple[int, int]] = PINPOINTS

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        self.newline = Parameter((root.s.hidden,))
        root.model.image_newline = self.newline
        v = outer.nested("vision_config") or Config({})
        self._side = v.integer("image_size", default=224, high=65_536)
        self._per_side = self._side // v.integer("patch_size", default=32, high=65_536)
        self._pinpoints = _pinpoints(outer, self.usual_pinpoints)

    def canvas(self, recipe: Recipe) -> tuple[int, int]:
        """Tiles down and across."""
        if recipe.image_size is None:
            raise missing_size("672x1008")
        high, wide = best_resolution(recipe.image_size, self._pinpoints)
        return high // self._side, wide // self._side

    def tiles(self, recipe: Recipe) -> int:
        """And the whole picture, made as large as one."""
        down, across = self.canvas(recipe)
        return down * across + 1

    def unpadded(self, recipe: Recipe) -> tuple[int, int]:
        """Rows and columns of patches of the tiles that lie on the picture."""
        down, across = self.canvas(recipe)
        high, wide = down * self._per_side, across * self._per_side
        height, width = recipe.image_size or (high, wide)
        if width / height > wide / high:
            high -= 2 * ((high - int(round(height * (wide / width), 7))) // 2)
        else:
            wide -= 2 * ((wide - int(round(width * (high / height), 7))) // 2)
        return high, wide

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """The whole picture's tokens, the tiles' without padding, and one behind each row."""
        found = super().pictures(recipe)
        if found is None:
            return None
        high, wide = self.unpadded(recipe)
        return replace(found, tokens=recipe.images * (self.tokens() + high * (wide + 1)))

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Tower and projector on all tiles, then picture by picture."""
        recipe, width = call.recipe, hidden.width
        assert isinstance(width, int)
        tiles = recipe.images * self.tiles(recipe)
        pixels = Tensor(None, BATCH * pictures.values, given_dtype(recipe), pictures.values)  # booked with the batch
        pixels = ops.copy(t, pixels, "tiles of all pictures")
        own = replace(call.of_length(BATCH * tiles), checkpointing=call.checkpointing)
        taken, *rest = self._vision(t, pixels, own, BATCH * tiles, True)
        t.end(pixels)
        call.held += [taken, *rest]
        if self._cut:
            numel = BATCH * (tiles * self.tokens() * self._vision.hidden)
            taken = ops.cut(t, taken, "tower's states without the first token", numel=numel)
            taken = ops.copy(t, taken, "tower's states in one piece")
        found: Tensor = split_up(t, self._projector(t, taken))
        packed = self.packed(t, found, recipe, width)
        call.held.append(packed)
        return self.exchanged(t, hidden, call, joined(t, packed, "pictures: tokens of all, joined"))

    def packed(self, t: Tape, found: Tensor, recipe: Recipe, width: int) -> Tensor:
        """The whole picture's tokens and the tiles', with the ends of their rows. Shapes: (tokens of tiles, width) to (tokens, width)."""
        high, wide = self.unpadded(recipe)
        base = ops.cut(t, found, "tokens of whole pictures", numel=BATCH * (recipe.images * self.tokens() * width))
        rest_of = BATCH * (recipe.images * (self.tiles(recipe) - 1) * self.tokens() * width)
        laid = ops.copy(t, ops.cut(t, found, "tokens of tiles", numel=rest_of), "tokens of tiles, by value")
        laid = ops.cut(t, laid, "tokens of tiles, unpadded", numel=BATCH * (recipe.images * high * wide * width))
        laid, high = self.fitted(t, laid, recipe, width)
        return ops.cat(t, [base, self.ended(t, laid, high, recipe, width)], width, "pictures: tokens of each")

    def fitted(self, t: Tape, laid: Tensor, recipe: Recipe, width: int) -> tuple[Tensor, int]:
        """The tiles' tokens as they are, and how many rows they are."""
        return laid, self.unpadded(recipe)[0]

    def ended(self, t: Tape, laid: Tensor, rows: int, recipe: Recipe, width: int) -> Tensor:
        """With a vector behind each of so many rows."""
        line = ops.broadcast(
            t, t.parameter(self.newline), BATCH * (recipe.images * rows * width), "ends of rows", summed=True
        )
        line = ops.cast(t, line, laid.dtype, "ends of rows, cast")
        return ops.cat(t, [laid, line], width, "tokens with ends of rows")

    def parameters(self) -> list[Parameter]:
        """With the vector behind rows."""
        return [*super().parameters(), self.newline]


def _pinpoints(outer: Config, usual: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    given = outer.entries.get("image_grid_pinpoints")
    if given is None:
        return usual
    pairs = given if isinstance(given, (list, tuple)) and 0 < len(given) <= 1_000 else ()
    sides = [side for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2 for side in pair]
    if not pairs or len(sides) != 2 * len(pairs) or not all(type(side) is int and 0 < side < 2**16 for side in sides):
        raise InvalidInput(
            "config.image_grid_pinpoints must be a list of heights and widths", field="config.image_grid_pinpoints"
        )
    return [(high, wide) for high, wide in pairs]


def best_resolution(size: tuple[int, int], possible: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The one that keeps most of the picture's pixels; of equal ones the one that wastes least."""
    height, width = size

    def kept(high: int, wide: int) -> int:
        scale = min(wide / width, high / height)
        return min(int(width * scale) * int(height * scale), width * height)

    return max(possible, key=lambda one: (kept(*one), kept(*one) - one[0] * one[1]))

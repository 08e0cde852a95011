"""Video-LLaVA: two CLIP towers, one for pictures and one for the frames of a video, and one projector for both.

Source: transformers 5.23, models/video_llava/modeling_video_llava.py; every picture and frame is made as large as the tower takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.families.projected import LlavaMedia
from loralens.core.architecture.media import Media, Pictures
from loralens.core.architecture.module import Module
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.size import BATCH, TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loralens.core.architecture.call import Call
    from loralens.core.architecture.config import Config
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.tape import Tape


class VideoLlavaMedia(LlavaMedia):
    """Both towers; a frame keeps its first token, a picture does not."""

    tower = "image_tower"
    words = (*LlavaMedia.words, "video_frames")

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        Media.__init__(self, root, outer)
        v = outer.nested("vision_config")
        assert v is not None
        self._frames, self._vision = self.seen(outer, v), self.seen(outer, v)
        self._frames.name, self._vision.name = "video_tower", "image_tower"
        self._projector = self.made(outer, self._vision.hidden, root.s.hidden)
        self.join([*zip(self.towers, (self._frames, self._vision), strict=True), (self.projector, self._projector)])

    @property
    def towers(self) -> tuple[str, ...]:
        """Both."""
        return ("video_tower", self.tower)

    def buffer_bytes(self) -> int:
        """Of both."""
        return 2 * super().buffer_bytes()

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """Pictures and frames together."""
        seen, frames, v = super().pictures(recipe) or Pictures(0, 0, 0), recipe.video_frames, self._vision
        if not recipe.images and not frames:
            return None
        return Pictures(seen.values + frames * v.values, seen.rows + frames * v.tokens, seen.tokens + frames * v.tokens)

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Pictures, then frames."""
        recipe = call.recipe
        for tower, count in ((self._vision, recipe.images), (self._frames, recipe.video_frames)):
            if count:
                hidden = self._placed(t, hidden, call, tower, count)
        return hidden

    def _placed(self, t: Tape, hidden: Tensor, call: Call, tower: Module, count: int) -> Tensor:
        images, v = BATCH * count, self._vision
        several = count > 1 or call.validity.exceeds("micro_batch_size", 1)
        pixels = Tensor(None, images * v.values, given_dtype(call.recipe), v.values)  # booked with the batch
        own = replace(call.of_length(images), checkpointing=call.checkpointing)
        taken, *rest = tower(t, pixels, own, images, several)
        call.held += [taken, *rest]
        if tower is v and self._cut:
            taken = self.without_first(t, taken, images, several)
        rows = ops.cast(t, self._projector(t, taken), hidden.dtype, "pictures: tokens in the embeddings' dtype")
        masks = [t.new(TOKENS, "bool", 1, "places of media") for _ in range(2)]
        call.held += [rows, *masks]
        self.returned.append(Tensor(rows.storage, rows.numel, rows.dtype, rows.width))
        return masked_scatter(t, hidden, masks[0], rows, "embeddings with pictures")

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """Of a tower that nothing is given to, and what stands behind the layer that is read."""
        if self.pictures(recipe) is None:
            return self.parameters()
        found: list[Parameter] = []
        for name, tower, given in (
            ("image_tower", self._vision, recipe.images),
            ("video_tower", self._frames, recipe.video_frames),
        ):
            found += [p for part in tower.unread for p in part.all_parameters()] if given else self.of((name,))
        return found

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """Rows of the tower that it stands in."""
        for tower, count in (("image_tower", recipe.images), ("video_tower", recipe.video_frames)):
            if name.startswith(f"{self.below}{tower}."):
                return count * self._vision.tokens / recipe.sequence_length
        return super().uses_per_token(name, recipe)

"""Gemma 4 without a tower (`gemma4_unified`): patches of pictures go through norms and one layer, sound through one layer.

Source: transformers 5.23, models/gemma4_unified/modeling_gemma4_unified.py and image_processing_gemma4_unified.py (at most 280
tokens of a picture, its default, to which every picture is padded).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import Config
from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.families.per_layer import PowerNorm
from loralens.core.architecture.families.projected import exchanged
from loralens.core.architecture.families.qwen_vision import joined, split_up
from loralens.core.architecture.media import Media, Pictures, missing_size
from loralens.core.architecture.module import Linear, Module
from loralens.core.errors import InvalidInput
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import BATCH, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

MOST_TOKENS: Final = 280
SILENT: Final = "no sample holds sound, which is not modelled: the weights for it are held and do not run"


class Embedder(Module):
    """A norm without weight, and one layer to the language model's width."""

    def __init__(self, inputs: int, hidden: int) -> None:
        self.embedding_projection = Linear(inputs, hidden, name="projector")
        self.embedding_pre_projection_norm = PowerNorm(inputs, scaled=False)

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows, hidden)."""
        x = ops.cast(t, x, self.embedding_projection.weight.dtype, "projector: input in the weights' dtype")
        normed = self.embedding_pre_projection_norm(t, x)
        out: Tensor = self.embedding_projection(t, normed)
        return out


class PatchEmbedder(Module):
    """Patches between norms, with a vector for each row and column."""

    multiplies = False  # the positions are added

    def __init__(self, v: Config, hidden: int) -> None:
        side = v.integer("patch_size", default=16, high=65_536) * v.integer(
            "pooling_kernel_size", default=3, high=65_536
        )
        width = v.integer("mm_embed_dim", default=3840)
        self.patch_ln1 = LayerNorm(3 * side**2)
        self.patch_dense = Linear(3 * side**2, width, True, name="patch embeddings")
        self.patch_ln2 = LayerNorm(width)
        self.pos_embedding = Parameter((v.integer("mm_posemb_size", default=1120), 2, width))
        self.pos_norm = LayerNorm(width)
        self.multimodal_embedder = Embedder(v.integer("output_proj_dims", default=3840), hidden)
        self.side, self.width = side, width

    def forward(self, t: Tape, pixels: Tensor, call: Call, rows: Size) -> tuple[Tensor, Tensor]:
        """Shapes: (rows, values of a patch) to (rows, width) and (rows, hidden)."""
        dtype = self.patch_dense.weight.dtype
        hidden = self.patch_ln1(t, ops.cast(t, pixels, dtype, "patches in the weights' dtype"))
        hidden = self.patch_dense(t, hidden)
        hidden = self.patch_ln2(t, hidden)
        places = t.local(t.new(rows * 2, "int64", 2, "places of patches"))
        valid = t.local(t.new(rows * 2, self.pos_embedding.dtype, 1, "which patches are there"))
        taken = ops.indexed(
            t, t.parameter(self.pos_embedding), places, rows * (2 * self.width), self.width, "positions"
        )
        weighted = ops.mul(t, taken, valid, "positions of patches that are there")
        t.end(taken)
        positions = t.local(derivatives.total(t, weighted, "positions of rows and columns", numel=rows * self.width))
        t.end(weighted)
        hidden = ops.add(t, hidden, positions, "patches in their places")
        hidden = self.pos_norm(t, hidden)
        return hidden, self.multimodal_embedder(t, hidden)


class Sounding(Media):
    """Beside pictures' parts others for sound, which are held and do not run."""

    sound: tuple[str, ...] = ()  # a tower where there is one, and a projector

    @property
    def towers(self) -> tuple[str, ...]:
        """And that for sound."""
        return (*super().towers, *self.sound[:-1])

    @property
    def projectors(self) -> tuple[str, ...]:
        """And that for sound."""
        return (*super().projectors, *self.sound[-1:])

    def unreached(self, recipe: Recipe) -> list[Parameter]:
        """What is for sound, and without pictures everything."""
        return self.of(self.sound) if self.pictures(recipe) else self.parameters()

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """No sound is heard."""
        if name.startswith(tuple(f"{self.below}{part}." for part in self.sound)):
            return 0.0
        return super().uses_per_token(name, recipe)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """That no sound is heard."""
        return [*super().assumptions(recipe), *([SILENT] if self.sound else [])]


class UnifiedMedia(Sounding):
    """Patches are tokens; pictures, and sound where the config has any, have a part each."""

    projector = "embed_vision"

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """With pictures."""
        return outer.nested("vision_config") is not None

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        self._vision = PatchEmbedder(outer.nested("vision_config") or Config({}), root.s.hidden)
        parts: list[tuple[str, Module]] = [(self.projector, self._vision)]
        audio, last = outer.nested("audio_config"), self._vision.multimodal_embedder
        if audio is not None:
            self.sound = ("embed_audio",)
            last = Embedder(audio.integer("audio_embed_dim", default=640), root.s.hidden)
            parts.append(("embed_audio", last))
        if root.tied:  # transformers' quantizers leave out what has the last parameter, which is not the head's then
            last.embedding_projection.packable = False
        self.join(parts)

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """As large as so many patches allow; padded to them."""
        if not recipe.images:
            return None
        if recipe.image_size is None:
            raise missing_size("512x768")
        tokens = patches(*recipe.image_size, self._vision.side, MOST_TOKENS)
        rows = MOST_TOKENS * recipe.images
        return Pictures(rows * 3 * self._vision.side**2, rows, tokens * recipe.images)

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Places of patches, and a kind for every token."""
        return [("places of patches", BATCH * (MOST_TOKENS * recipe.images * 2 * 8)), ("kinds of tokens", TOKENS * 8)]

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """The patches that are there, in their places."""
        rows = BATCH * pictures.rows
        values = 3 * self._vision.side**2
        pixels = Tensor(None, rows * values, given_dtype(call.recipe), values)  # booked with the batch
        states, tokens = self._vision(t, pixels, replace(call.of_length(rows)), rows)
        there = t.new(rows, "bool", 1, "which patches are there")
        width = tokens.width
        assert isinstance(width, int)
        kept = ops.indexed(
            t, tokens, there, BATCH * (pictures.tokens * width), width, "tokens of patches that are there"
        )
        t.end(tokens)
        kept = split_up(t, kept)
        call.held += [states, kept]
        found = joined(t, kept, "pictures: tokens of all, joined")
        return exchanged(self, t, hidden, call, found)

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """Padding is worked on too."""
        found = self.pictures(recipe)
        pictured = found is not None and name.startswith(f"{self.below}{self.projector}.")
        return found.rows / recipe.sequence_length if found and pictured else super().uses_per_token(name, recipe)


def patches(height: int, width: int, side: int, most: int) -> int:
    """Patches of a picture: both sides a whole number of them, its shape kept, the most that are allowed.

    Raises:
        InvalidInput: the picture is too long for its width.
    """
    factor = math.sqrt(most * side**2 / (height * width))
    high, wide = math.floor(factor * height / side), math.floor(factor * width / side)
    if not high and not wide:
        raise InvalidInput(f"image_size {height} × {width} is refused by this processor", field="image_size")
    if not high:
        high, wide = 1, min(math.floor(width / height), most)
    elif not wide:
        high, wide = min(math.floor(height / width), most), 1
    return high * wide

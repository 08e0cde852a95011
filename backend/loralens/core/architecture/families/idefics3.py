"""Idefics 3 and SmolVLM: every picture in tiles and as a whole, a SigLIP tower, neighbouring patches in one token.

Source: transformers 5.23, models/{idefics3,smolvlm}/modeling_*.py and image_processing_pil_*.py; the longest edge of the
published preprocessor_config.json, which is four times the tower's own size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.families.encoder_towers import TowerLayer
from loralens.core.architecture.families.projected import Projected
from loralens.core.architecture.families.qwen_vision import joined, split_up
from loralens.core.architecture.media import missing_size
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

LONGEST: Final = 4  # tiles along the longer side
MOST_PIXELS: Final = 4096


class NumberedPatches(Module):
    """A vector for each patch, and one for its place, which is looked up for every patch."""

    def __init__(self, channels: int, hidden: int, patch: int, side: int) -> None:
        self.patch_embedding = Convolution(channels, hidden, patch, patch, name="patch embeddings")
        self.position_embedding = Embedding((side // patch) ** 2, hidden)

    def forward(self, t: Tape, pixels: Tensor, call: Call, rows: Size) -> Tensor:
        """Shapes: (tiles * values) to (tiles * patches, hidden)."""
        patches = t.local(self.patch_embedding(t, pixels, rows))
        with t.temporary(rows, "int64", 1, "numbers of places"):
            numbers = t.local(t.new(rows, "int64", 1, "numbers of places"))
        hidden = ops.add(
            t, patches, self.position_embedding(t, rows, "position embeddings", numbers), "patches in places"
        )
        if call.input_gradients:
            t.require_grad(hidden, copied=True)  # the patches lie last in memory, the hidden values first
        return hidden


class TiledTower(Module):
    """SigLIP without a head. `any_size`: a call says how many patches a picture has."""

    def __init__(self, v: Config, *, any_size: bool = False) -> None:
        hidden, heads = v.integer("hidden_size", default=1152), v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        layers = v.integer("num_hidden_layers", default=12, high=MAX_LAYERS)
        wide = v.integer("intermediate_size", default=3072)
        channels = v.integer("num_channels", default=3)
        side, patch = (
            v.integer("image_size", default=224, high=65_536),
            v.integer("patch_size", default=32, high=65_536),
        )
        act = known(v.text("hidden_act", "gelu_pytorch_tanh"), "config.vision_config.hidden_act")
        dropout = v.number("attention_dropout", 0.0, 0, 1)
        self.side, self.patch, self.tokens, self.hidden = side, patch, (side // patch) ** 2, hidden
        self.values = channels * side**2
        self.embeddings = NumberedPatches(channels, hidden, patch, side)
        self.encoder = Module()
        self.encoder.layers = Stack(
            lambda _: TowerLayer(hidden, wide, heads, None if any_size else self.tokens, act, dropout), [None] * layers
        )
        self.post_layernorm = LayerNorm(hidden)
        self.unread: list[Module] = []

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size) -> Tensor:
        """Shapes: (tiles * values) to (tiles * patches, hidden)."""
        patches = self.tokens if call.beside is None else call.beside
        hidden = t.local(self.embeddings(t, pixels, call, images * patches))
        layers, name = self.encoder.layers.layers, "model.vision_model.encoder.layers"
        found = t.local(walk_stack(t, name, layers, hidden, call, checkpointing=call.checkpointing))
        return self.post_layernorm(t, found)


class Connector(Module):
    """Neighbouring patches side by side, and one layer."""

    def __init__(self, inputs: int, hidden: int) -> None:
        self.modality_projection = Module()
        self.modality_projection.proj = Linear(inputs, hidden, name="projector")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden of the tower) to (tokens, hidden)."""
        proj = self.modality_projection.proj
        laid = ops.copy(t, x, "tower's states, shuffled once")
        x = ops.copy(t, laid, "tower's states, shuffled").view(proj.in_features)
        t.end(laid)
        return proj(t, x)


class Idefics3Media(Projected):
    """Tower and connector."""

    usual = "idefics3_vision"
    tower, projector, language = "vision_model", "connector", "text_model"

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """Its own tower."""
        return outer.nested("vision_config") is not None

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower."""
        return TiledTower(v)

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """As many patches in a token as the scale's square."""
        self._shuffle = outer.integer("scale_factor", default=2, high=1_024) ** 2
        return Connector(inputs * self._shuffle, hidden)

    def tokens(self) -> int:
        """Of one tile."""
        found: int = self._vision.tokens // self._shuffle
        return found

    def buffer_bytes(self) -> int:
        """None."""
        return 0

    def tiles(self, recipe: Recipe) -> int:
        """And the whole picture."""
        if recipe.image_size is None:
            raise missing_size("512x768")
        high, wide = resized(*recipe.image_size, self._vision.side)
        return (high // self._vision.side) * (wide // self._vision.side) + 1

    def area(self, recipe: Recipe) -> int:
        """Pixels of a tile."""
        side: int = self._vision.side
        return side**2

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Which pixels are there."""
        return [("which pixels are there", BATCH * (recipe.images * self.tiles(recipe) * self.area(recipe) * 8))]

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """Empty pictures are left out, by a copy of the others; then tower and connector."""
        v, area = self._vision, self.area(call.recipe)
        dtype, values = v.embeddings.patch_embedding.weight.dtype, v.values // v.side**2 * area
        pixels = ops.cast(t, pixels, dtype, "pictures in the weights' dtype")
        pixels = t.replace(pixels, t.new(images * values, dtype, values, "pictures that are there"))
        there = t.new(images * area, "int64", 1, "which pixels are there")
        states = v(t, pixels, call, images)
        tokens = split_up(t, self.projected(t, states, call, images, several))
        t.end(there, pixels)
        held += [states, tokens]
        self.remember(states, tokens)
        tokens = joined(t, tokens, "pictures: tokens of all, joined")
        return ops.cast(t, tokens, dtype, "pictures: tokens in the weights' dtype")

    def projected(self, t: Tape, states: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        """The connector's."""
        return self._projector(t, states)

    def remember(self, states: Tensor, tokens: Tensor) -> None:
        """What the tower and the connector have made."""


class SmolVLMMedia(Idefics3Media):
    """The same code, which returns the tower's states and the tokens as the connector made them."""

    usual = "smolvlm_vision"
    _found: tuple[Tensor, ...] = ()

    def remember(self, states: Tensor, tokens: Tensor) -> None:
        """To be returned."""
        self._found = states, tokens

    def exchanged(self, t: Tape, hidden: Tensor, call: Call, rows: Tensor) -> Tensor:
        """The pictures' tokens in their places."""
        hidden = super().exchanged(t, hidden, call, rows)
        self.returned = [Tensor(x.storage, x.numel, x.dtype, x.width) for x in self._found]
        self._found = ()
        return hidden


def resized(height: int, width: int, side: int) -> tuple[int, int]:
    """The longer side as `LONGEST` tiles, the shorter one as a whole number of tiles that hold it."""
    longest = LONGEST * side
    wider = width >= height
    ratio = width / height
    other = int(longest / ratio) if wider else int(longest * ratio)
    other = max(other + other % 2, 1)
    sides = [longest, other]
    if longest > MOST_PIXELS:
        shape = longest / other if wider else other / longest
        sides = [MOST_PIXELS, max(int(MOST_PIXELS / shape) if wider else int(MOST_PIXELS * shape), 1)]
    shape = sides[0] / sides[1] if wider else sides[1] / sides[0]
    long = math.ceil(sides[0] / side) * side
    short = int(long / shape) if wider else int(long * shape)
    short = math.ceil(short / side) * side
    return (short, long) if wider else (long, short)

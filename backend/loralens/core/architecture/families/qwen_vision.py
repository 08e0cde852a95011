"""What the towers of Qwen2-VL and its successors share: patches of all pictures in one row, and how many there are.

Source: transformers 5.23, models/{qwen2_vl,qwen2_5_vl}/modeling_*.py, models/qwen2_vl/image_processing_qwen2_vl.py
(`smart_resize`) and video_processing_qwen2_vl.py; limits of the published preprocessor_config.json of Qwen2-VL and
Qwen2.5-VL (3,136 to 12,845,056 pixels), of video those of the processor's class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import rotate
from loralens.core.architecture.config import Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.media import Media, Pictures, missing_size
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.errors import InvalidInput
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.packed import Pieces, attend
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe

TAPS = 4  # places of a learned table that a patch's position is a mean of (bilinear)
STEEPEST = 200  # one side over the other: more is refused by the processor


@dataclass(frozen=True, slots=True)
class Grid:
    """Patches of a sample's pictures, or of its video's frames: all are alike."""

    pictures: int
    frames: int  # of each, after patches have joined several; a picture has one
    height: int
    width: int

    @property
    def patches(self) -> int:
        """Of one sample."""
        return self.pictures * self.frames * self.height * self.width

    @property
    def rows(self) -> Size:
        """Patches of the batch."""
        return BATCH * self.patches

    def pieces(self) -> Pieces:
        """Every frame sees itself alone."""
        rows, frames = self.height * self.width, self.pictures * self.frames
        return Pieces(ONE * rows, BATCH * frames, BATCH * (frames * rows**2))


def resized(height: int, width: int, factor: int, least: int, most: int, frames: int = 1) -> tuple[int, int]:
    """Both sides as multiples of `factor`, the area between `least` and `most` pixels, of all `frames` together.

    Raises:
        InvalidInput: the picture is too long for its width.
    """
    if max(height, width) > STEEPEST * min(height, width):
        raise InvalidInput(
            f"image_size {height} × {width}: this processor refuses pictures more than {STEEPEST} times as long as wide",
            field="image_size",
            hint="try image_size=448x672",
        )
    high, wide = (round(side / factor) * factor for side in (height, width))
    whole = 1 if frames == 1 else max(2, round(frames / 2) * 2)
    if whole * high * wide > most:
        shrunk = math.sqrt(frames * height * width / most)
        high, wide = (max(factor, math.floor(side / shrunk / factor) * factor) for side in (height, width))
    elif whole * high * wide < least:
        grown = math.sqrt(least / (frames * height * width))
        high, wide = (math.ceil(side * grown / factor) * factor for side in (height, width))
    return high, wide


class PatchEmbed(Module):
    """A convolution over patches of the picture, and over frames."""

    def __init__(self, v: Config, hidden: int, *, bias: bool, patch: int = 14) -> None:
        self.patch = v.integer("patch_size", default=patch, high=65_536)
        self.frames = v.integer("temporal_patch_size", default=2, high=65_536)
        channels = v.integer("in_channels", "in_chans", default=3)
        kernel = (self.frames, self.patch, self.patch)
        self.proj = Convolution(channels, hidden, *kernel, name="patch embeddings", bias=bias)
        self.values = channels * self.frames * self.patch**2

    def forward(self, t: Tape, pixels: Tensor, rows: Size) -> Tensor:
        """Shapes: (rows, values of a patch) to (rows, hidden)."""
        return self.proj(t, ops.cast(t, pixels, self.proj.weight.dtype, "patches in the weights' dtype"), rows)


@dataclass(frozen=True, slots=True)
class VisionTables:
    """Rotary tables for rows and columns, in float32."""

    width: int  # of a head

    def made(self, t: Tape, rows: Size) -> tuple[Tensor, Tensor]:
        """cos and sin, (rows, width) each."""
        quarter, half = self.width // 4, self.width // 2
        with t.temporary(rows * 2, "float32", 1, "rotary: positions in float32"):
            angles = t.new(rows * (2 * quarter), "float32", quarter, "rotary: angles")

        def scaled(name: str) -> Tensor:
            with t.temporary(rows * (2 * quarter), "float32", quarter, name):
                return t.new(rows * (2 * quarter), "float32", quarter, name)

        def spread(table: Tensor, name: str) -> Tensor:
            with t.temporary(rows * half, "float32", half, name):
                return t.replace(table, t.new(rows * self.width, "float32", self.width, name))

        cos, sin = scaled("rotary: cos"), scaled("rotary: sin")
        cos = spread(cos, "rotary: cos")
        sin = spread(sin, "rotary: sin")
        t.end(angles)
        return cos, sin


def rotate_vision(t: Tape, q: Tensor, k: Tensor, tables: tuple[Tensor, Tensor], width: int) -> tuple[Tensor, Tensor]:
    """Rotary in float32, cast back."""
    whole, dtype = q.width, q.dtype
    tables = (
        ops.cast(t, tables[0], "float32", "rotary: cos in float32"),
        ops.cast(t, tables[1], "float32", "rotary: sin in float32"),
    )
    q, k = (ops.cast(t, x.view(width), "float32", f"attention {n} in float32") for x, n in ((q, "query"), (k, "key")))
    turned = rotate(t, q, tables, "attention query")
    other = rotate(t, k, tables, "attention key")
    turned = ops.cast(t, turned, dtype, "attention query after rotary, cast back")
    other = ops.cast(t, other, dtype, "attention key after rotary, cast back")
    return turned.view(whole), other.view(whole)


class VisionAttention(Module):
    """One matrix for query, key and value; a kernel call for each window, frame or picture."""

    def __init__(self, hidden: int, heads: int, *, bias: bool = True, output_bias: bool = True) -> None:
        self.qkv = Linear(hidden, 3 * hidden, bias, name="attention query, key and value")
        self.proj = Linear(hidden, hidden, output_bias, name="attention output projection")
        self._heads, self._hidden = heads, hidden

    def forward(self, t: Tape, x: Tensor, call: Call, pieces: Pieces) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        q, k, v = unbound(t, self.qkv(t, x), self._hidden)
        q, k = self.normed(t, q, k)
        q, k = rotate_vision(t, q, k, call.shared["rotary"], self._hidden // self._heads)
        out = attend(t, q, k, v, self._heads, pieces)
        return self.proj(t, out)

    def normed(self, t: Tape, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """As they are."""
        return q, k


class SplitVisionAttention(Module):
    """A matrix each for query, key and value; turned where the call has tables."""

    def __init__(
        self, hidden: int, heads: int, output: str = "proj", *, key_bias: bool = True, suffix: str = "_proj"
    ) -> None:
        for name, label in (("q", "query"), ("k", "key"), ("v", "value")):
            bias = key_bias or name != "k"
            setattr(self, name + suffix, Linear(hidden, hidden, bias, name=f"attention {label}"))
        setattr(self, output, Linear(hidden, hidden, True, name="attention output projection"))
        self._heads, self._hidden, self._output, self._suffix = heads, hidden, output, suffix

    def forward(self, t: Tape, x: Tensor, call: Call, pieces: Pieces | None = None) -> Tensor:
        """Shapes: (rows, hidden) to the same. Without pieces every frame sees itself alone."""
        q, k, v = (getattr(self, name + self._suffix)(t, x) for name in "qkv")
        if "rotary" in call.shared:
            q, k = rotate_vision(t, q, k, call.shared["rotary"], self._hidden // self._heads)
        out: Tensor = getattr(self, self._output)(t, attend(t, q, k, v, self._heads, pieces or call.beside.pieces()))
        return out


def resampled(t: Tape, hidden: Tensor, table: Embedding, rows: Size, indices: Tensor, weights: Tensor) -> Tensor:
    """Patches with their positions: a weighted mean of places of a learned table for each, in float32."""
    taps = table(t, indices.numel, "position embeddings", indices)
    weighted = ops.mul(t, taps, weights, "position embeddings, weighted")
    t.end(taps)
    mean = derivatives.total(t, weighted, "position embeddings", numel=rows * table.width)
    t.end(weighted)
    return ops.add(t, hidden, ops.cast(t, mean, hidden.dtype, "position embeddings, cast"), "patches in their places")


def taps_of(t: Tape, rows: Size) -> tuple[Tensor, Tensor]:
    """The places of the table, and their weights, for every patch."""
    indices = t.new(rows * TAPS, "int64", TAPS, "vision positions: places")
    return indices, t.new(rows * TAPS, "float32", TAPS, "vision positions: weights")


def unbound(t: Tape, x: Tensor, width: int) -> list[Tensor]:
    """`reshape(rows, 3, …).permute(1, 0, 2, 3).unbind(0)`: views; backward stacks three gradients and lays them by row."""
    laid = x.view()
    numel, dtype, whole = x.numel, x.dtype, x.width
    label = "attention query, key and value"
    t.record(label, [laid], [x], [], lambda g: t.new(numel, dtype, whole, f"gradient: {label}, by row", "temporaries"))
    outs = [Tensor(x.storage, numel // 3, dtype, width) for _ in range(3)]
    stacked = f"gradient: {label}, stacked"
    t.record(label, outs, [laid], [], lambda *g: t.new(numel, dtype, whole, stacked, "temporaries"))
    return outs


class PatchMerger(Module):
    """Neighbouring patches side by side, and two layers to the language model's width."""

    def __init__(self, norm: Module, merged: int, out: int, *, late_norm: bool = False) -> None:
        self.ln_q = norm
        self.mlp = Module()
        setattr(self.mlp, "0", Linear(merged, merged, True, name="merger: first"))
        setattr(self.mlp, "2", Linear(merged, out, True, name="merger: second"))
        self._merged, self._late_norm = merged, late_norm

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, context) to (tokens, out)."""
        x = self.ln_q(t, x.view(self._merged) if self._late_norm else x).view(self._merged)
        x = getattr(self.mlp, "0")(t, x)
        x = activation(t, x, "gelu", "merger: activated")
        x = getattr(self.mlp, "2")(t, x)
        return x


class QwenMedia(Media):
    """Pictures and video: the tower runs once for each of the two, and its tokens take their places."""

    tower = "visual"
    words = (*Media.words, "video_frames")
    limits = (56 * 56, 14 * 14 * 4 * 16_384)
    video_limits = (128 * 28 * 28, 768 * 28 * 28)  # of a frame
    video_limits_together = False
    masks = 2  # of placeholders, made for each kind
    blocks = "blocks"  # where the tower's layers stand in it

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        self._width = root.s.hidden
        self._visual = visual = self.made(outer.nested("vision_config") or Config({}))
        self._merge = visual.merge
        self.join([(self.tower, visual), *self.behind(outer)])

    def behind(self, outer: Config) -> list[tuple[str, Module]]:
        """What stands between the tower and the language model."""
        return []

    def made(self, v: Config) -> Module:
        """The tower, from the vision config."""
        raise NotImplementedError

    def buffer_bytes(self) -> int:
        """Inverse frequencies of the rotary tables and their copy."""
        quarter: int = self._visual.head // 4
        return quarter * 4 * 2

    def grids(self, recipe: Recipe) -> dict[str, Grid]:
        """Patches by kind: pictures, and video where the processor's is modelled."""
        frames = recipe.video_frames if "video_frames" in self.words else 0
        if not recipe.images and not frames:
            return {}
        if recipe.image_size is None:
            raise missing_size()
        embed = self._visual.patch_embed
        found = {}
        if recipe.images:
            found["pictures"] = self._grid(self.sides(*recipe.image_size), recipe.images, 1)
        if frames:
            together = frames if self.video_limits_together else 1
            factor = embed.patch * self._merge
            sides = resized(*recipe.image_size, factor, *self.video_limits, frames=together)
            found["video"] = self._grid(sides, 1, -(-frames // embed.frames))
        return found

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """A picture's height and width when the processor has resized it."""
        return resized(height, width, self._visual.patch_embed.patch * self._merge, *self.limits)

    def _grid(self, sides: tuple[int, int], pictures: int, frames: int) -> Grid:
        patch = self._visual.patch_embed.patch
        return Grid(pictures, frames, sides[0] // patch, sides[1] // patch)

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """All kinds together."""
        patches = sum(grid.patches for grid in self.grids(recipe).values())
        values = patches * self._visual.patch_embed.values
        return Pictures(values, patches, patches // self._merge**2) if patches else None

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """A kind for every token."""
        return [("kinds of tokens", TOKENS * 8)]

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """For each kind the tower, then the exchange; what the tower returns stays until the model's forward is over."""
        first, features = t.layers_walked, {}
        for kind, grid in self.grids(call.recipe).items():
            t.layers_walked = first  # the same layers, whose gradients add up
            features[kind] = self._features(t, call, grid)
        for found in features.values():
            call.held += found
        for kind, (_, tokens, *_early) in features.items():
            rows = joined(t, tokens, f"{kind}: tokens of all, joined")
            rows = ops.cast(t, rows, hidden.dtype, f"{kind}: tokens in the embeddings' dtype")
            masks = [t.new(TOKENS, "bool", 1, "places of media") for _ in range(self.masks)]
            self.checked(t, hidden, masks[0], rows)
            hidden = masked_scatter(t, hidden, masks[0], rows, f"embeddings with {kind}")
            call.held += [rows, *masks]
        self.received(t, call, features)
        return hidden

    def checked(self, t: Tape, hidden: Tensor, mask: Tensor, rows: Tensor) -> None:
        """What the model's forward does to see that there is a place for every token."""

    def received(self, t: Tape, call: Call, features: dict[str, list[Tensor]]) -> None:
        """What else the model's forward does with the tower's results."""

    def _features(self, t: Tape, call: Call, grid: Grid) -> list[Tensor]:
        values = self._visual.patch_embed.values
        pixels = Tensor(None, grid.rows * values, given_dtype(call.recipe), values)  # booked with the batch
        held = self._visual.patch_embed.proj.weight.dtype
        pixels = ops.cast(t, pixels, held, "pictures in the tower's dtype")
        own = replace(call.of_length(grid.rows), checkpointing=call.checkpointing)
        name = f"{self.below}{self.tower}.{self.blocks}"
        hidden, *tokens = self.projected(t, self._visual(t, pixels, own, grid, name))
        return [hidden, *(split_up(t, found) for found in tokens)]

    def projected(self, t: Tape, found: list[Tensor]) -> list[Tensor]:
        """The tower's last states and its tokens, which may pass through more."""
        return found


def split_up(t: Tape, tokens: Tensor) -> Tensor:
    """Tokens by picture: views, whose gradients are joined."""
    split = tokens.view()
    numel, dtype, width = tokens.numel, tokens.dtype, tokens.width
    label = "gradient: tokens of all pictures"
    t.record("tokens by picture", [split], [tokens], [], lambda g: t.new(numel, dtype, width, label, "temporaries"))
    return split


def joined(t: Tape, tokens: Tensor, label: str) -> Tensor:
    """The pictures' tokens end to end: a copy, whose gradients are views."""
    return ops.copy(t, tokens, label)

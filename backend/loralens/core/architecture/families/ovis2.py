"""Ovis 2: tiles and a thumbnail in AIMv2's tower, a distribution over visual words for four patches each, and Qwen2's layers.

The states of its tower keep their channels first, as the layer on patches lays them: each matrix that trains copies its input.
Source: transformers 5.23, models/ovis2/{modeling,processing,image_processing_pil}_ovis2.py (crop_to_patches, as the published
preprocessor_config.json has it).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import Attention, GatedMLP, LayerNorm, RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.families.projected import Projected
from loralens.core.architecture.families.sam_attention import relaid
from loralens.core.architecture.media import missing_size
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.scatter import put
from loralens.core.tape.size import ONE, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

MOST_TILES: Final = 12
COVERED: Final = 0.9
TABLE: Final = "visual_embeddings_table"


class OvisAttention(Module):
    """Four projections around a kernel that sees the whole tile."""

    def __init__(self, v: Config, hidden: int, heads: int, tokens: int) -> None:
        bias = v.flag("qkv_bias", False)
        for name, label in (("k", "key"), ("v", "value"), ("q", "query")):
            setattr(self, f"{name}_proj", Linear(hidden, hidden, bias, name=f"attention {label}"))
        self.out_proj = Linear(hidden, hidden, bias, name="attention output projection")
        self._heads, self._tokens, self._dropout = heads, tokens, v.number("attention_dropout", 0.0, 0, 1)

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        width = self.out_proj.in_features // self._heads
        t.strided = self.q_proj.in_features if call.beside else 0
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        t.strided = 0
        kernel = Attention(
            self._heads, self._heads, width, width, call.attention, self._dropout, causal=False, keys=ONE * self._tokens
        )
        out: Tensor = self.out_proj(t, kernel(t, q, k, v).view(self.out_proj.in_features))
        return out


class OvisMLP(GatedMLP):
    """Its first two matrices see strided states."""

    def forward(self, t: Tape, x: Tensor, strided: bool = False) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        out: Tensor = self.down_proj(t, self._product(t, x, strided))
        return out

    def _product(self, t: Tape, x: Tensor, strided: bool) -> Tensor:
        t.strided = self.gate_proj.in_features if strided else 0
        gate = activation(t, self.gate_proj(t, x), self._act, "mlp: activated gate")
        up = self.up_proj(t, x)
        t.strided = 0
        return ops.mul(t, gate, up, "mlp: product")


class OvisLayer(Module):
    """Pre-norm attention and MLP."""

    def __init__(self, v: Config, hidden: int, heads: int, tokens: int) -> None:
        act = known(v.text("hidden_act", "silu"), "config.vision_config.hidden_act")
        self.attention = OvisAttention(v, hidden, heads, tokens)
        self.ffn = OvisMLP(hidden, v.integer("intermediate_size", default=2816), v.flag("mlp_bias", False), act)
        self.rms_norm1, self.rms_norm2 = RMSNorm(hidden), RMSNorm(hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        normed = self.rms_norm1(t, hidden)
        branch = self.attention(t, normed, call)
        hidden = ops.add(t, hidden, branch, "residual stream after attention")
        normed = self.rms_norm2(t, hidden)
        out = self.ffn(t, normed, bool(call.beside))
        return ops.add(t, hidden, out, "residual stream after the layer")


class OvisPatches(Module):
    """A normed vector for each patch, and its position."""

    def __init__(self, v: Config, hidden: int, patch: int, tokens: int) -> None:
        self.patch_embedding = Convolution(
            v.integer("num_channels", default=3), hidden, patch, patch, name="patch embeddings"
        )
        self.position_embedding = Embedding(tokens, hidden)
        self.rms_norm = RMSNorm(hidden)
        self._tokens = tokens

    def forward(self, t: Tape, pixels: Tensor, tiles: Size, several: bool) -> Tensor:
        """Shapes: (tiles * values) to (tiles * patches, hidden)."""
        pixels = ops.cast(t, pixels, self.patch_embedding.weight.dtype, "pictures in the weights' dtype")
        hidden = self.patch_embedding(t, pixels, tiles * self._tokens)
        normed = self.rms_norm(t, hidden)
        positions = self.position_embedding(t, ONE * self._tokens, "position embeddings")
        if several:
            positions = ops.broadcast(t, positions, normed.numel, "position embeddings", summed=True)
        return ops.add(t, normed, positions, "patches in their places")


class OvisTower(Module):
    """The tower and its visual words."""

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=1024), v.integer("num_attention_heads", default=8)
        v.divides("num_attention_heads", hidden, heads)
        side, patch = (
            v.integer("image_size", default=224, high=65_536),
            v.integer("patch_size", default=14, high=65_536),
        )
        grid, self.stride = side // patch, v.integer("hidden_stride", default=1, high=65_536)
        made = v.text("tokenize_function", "softmax")
        if made != "softmax" or grid % self.stride:
            raise UnsupportedArchitecture(
                f"tokenize_function {made!r:.20} with {grid} patches a side is not modelled: softmax, and sides that"
                " hidden_stride divides, are",
                field="config.vision_config.tokenize_function",
            )
        self.tokens, self.hidden, self.side = grid**2, hidden, side
        self.values = v.integer("num_channels", default=3) * side**2
        self.indicators = v.integer("num_visual_indicator_tokens", default=5)
        self.words = v.integer("vocab_size", default=16384)
        self.transformer = Module()
        self.transformer.embeddings = OvisPatches(v, hidden, patch, self.tokens)
        self.transformer.encoder = Module()
        self.transformer.encoder.layers = Stack(
            lambda _: OvisLayer(v, hidden, heads, self.tokens),
            [True] * v.integer("num_hidden_layers", default=24, high=MAX_LAYERS),
        )
        self.transformer.rms_norm = RMSNorm(hidden)
        own = self.words - self.indicators
        self.head_linear = Linear(hidden * self.stride**2, own, False, name="visual words")
        self.head_norm = LayerNorm(own)
        self.unread: list[Module] = []

    def forward(self, t: Tape, pixels: Tensor, call: Call, tiles: Size, several: bool) -> list[Tensor]:
        """The states, several patches in a row, and how likely each word is. Shapes: (tiles * values) to (tiles * tokens, words)."""
        inner = self.transformer
        hidden = inner.embeddings(t, pixels, tiles, several)
        name = "model.vision_tower.transformer.encoder.layers"
        hidden = walk_stack(t, name, inner.encoder.layers.layers, hidden, call, checkpointing=call.checkpointing)
        hidden = t.local(inner.rms_norm(t, t.local(hidden)))
        if self.stride > 1:
            padded = t.local(relaid(t, hidden, "tower's states, padded by nothing"))
            hidden = ops.copy(t, padded, "patches by token", width=self.hidden * self.stride**2)
            t.end(padded)
        logits = t.local(self.head_norm(t, self.head_linear(t, hidden)))
        return [hidden, ops.softmax(t, logits, None, "visual words")]


class Ovis2Media(Projected):
    """A distribution over the tower's own vocabulary takes a mean of a table's vectors."""

    usual, projector = "ovis2_vision", TABLE

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """Its own tower."""
        v = outer.nested("vision_config")
        return v is not None and v.text("model_type", "") in ("", cls.usual)  # the published file leaves it empty

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        width = outer.integer("hidden_size", default=1536)
        if width != root.s.hidden:
            raise UnsupportedArchitecture(
                f"hidden_size {width} is not that of the language model, {root.s.hidden}", field="config.hidden_size"
            )
        self._ends: list[Tensor] = []
        self._width = width

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower."""
        return OvisTower(v)

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """The table."""
        return Embedding(self._vision.words, hidden)

    def tokens(self) -> int:
        """Of a tile."""
        found: int = self._vision.tokens // self._vision.stride**2
        return found

    def tiles(self, recipe: Recipe) -> int:
        """The fewest that cover the picture, and it whole."""
        if recipe.image_size is None:
            raise missing_size()
        found = covering(*recipe.image_size, self._vision.side)
        return found + (found > 1)

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """The words' vectors, and those of the five ends."""
        states, words = self._vision(t, pixels, replace(call, beside=several), images, several)
        held.append(states)
        rows, own = images * self.tokens(), self._vision.indicators
        nothing = t.new(rows * own, words.dtype, own, "words that are ends")
        out = ops.linear(
            t,
            ops.cat(t, [words, nothing], self._vision.words, "visual words with ends"),
            self._projector.weight,
            "visual embeddings",
        )
        numbers = t.new(ONE * own, "int64", 1, "numbers of ends")
        self._ends = [self._projector(t, ONE * own, "visual embeddings of ends", numbers)]
        t.end(nothing, numbers)
        return out

    def exchanged(self, t: Tape, hidden: Tensor, call: Call, rows: Tensor) -> Tensor:
        """And the ends, each under a mask of its own."""
        out = super().exchanged(t, hidden, call, rows)
        ends = self._ends.pop()
        call.held.append(ends)
        mask = None
        for _ in range(self._vision.indicators):
            mask = t.new(TOKENS, "bool", 1, "places of media")
            one = Tensor(None, ONE * self._width, ends.dtype, self._width)
            out = put(t, out, mask, one, "embeddings with ends of pictures")
        if mask is not None:
            call.held.append(mask)
        return out


def covering(height: int, width: int, side: int) -> int:
    """Tiles that a picture is cut into.

    Source: models/ovis2/image_processing_pil_ovis2.py, `get_min_tile_covering_grid`.
    """
    found = []
    for first in range(1, MOST_TILES + 1):
        for second in range(1, MOST_TILES // first + 1):
            found.append((_covered(height, width, first, second, side) / (width * height), first * second))
    enough = [tiles for ratio, tiles in found if ratio > COVERED]
    return min(enough) if enough else min(found, key=lambda each: (-each[0], each[1]))[1]


def _covered(height: int, width: int, rows: int, columns: int, side: int) -> float:
    total = 0.0
    for row in range(rows):
        high = height - row * (height // rows) if row == rows - 1 else height // rows
        for column in range(columns):
            wide = width - column * (width // columns) if column == columns - 1 else width // columns
            longer, shorter = max(high, wide), float(min(high, wide))
            if longer > side:
                shorter, longer = shorter / longer * side, side
            total += longer * shorter
    return total

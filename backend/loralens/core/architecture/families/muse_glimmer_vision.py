"""Muse Glimmer's tower: positions resampled from a learned table, layers that see windows, some whole pictures; four patches are a token.

Source: transformers 5.23, models/muse_glimmer/{modeling,image_processing}_muse_glimmer.py (at most 4,096 tokens of a picture, its
default). Videos are not modelled.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.families.per_layer import PowerNorm
from loralens.core.architecture.families.qwen2_5_vl import Windows, by_window
from loralens.core.architecture.families.qwen2_vl import PlainVisionBlock
from loralens.core.architecture.families.qwen_vision import (
    Grid,
    QwenMedia,
    SplitVisionAttention,
    VisionTables,
    resampled,
    taps_of,
)
from loralens.core.architecture.media import Media, Pictures, refuse_packed
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.packed import Pieces
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

MOST_TOKENS: Final = 4_096


class MuseBlock(PlainVisionBlock):
    """Windows, or whole pictures."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str, *, whole: bool) -> None:
        super().__init__(hidden, intermediate, heads, act, ("fc1", "fc2"))
        self.attn = SplitVisionAttention(hidden, heads)
        self._whole = whole

    def pieces(self, call: Call) -> Pieces:
        """What sees itself alone."""
        found: Pieces = call.beside.pieces(whole=self._whole)
        return found


class MusePatches(Module):
    """A layer on the patches, and their positions."""

    def __init__(self, v: Config, hidden: int) -> None:
        self.patch = v.integer("patch_size", default=14, high=65_536)
        self.frames = v.integer("patch_temporal", default=2, high=65_536)
        self.values = self.frames * 3 * self.patch**2
        self.side = v.integer("pos_emb_height", default=32, high=65_536)
        self.patch_embedding = Linear(self.values, hidden, name="patch embeddings")
        places = self.side * v.integer("pos_emb_width", default=32, high=65_536)
        self.position_embedding_table = Embedding(places, hidden)

    @property
    def proj(self) -> Linear:
        """What makes a vector of a patch."""
        return self.patch_embedding

    def forward(self, t: Tape, pixels: Tensor, rows: Size) -> Tensor:
        """Shapes: (rows, values of a patch) to (rows, hidden)."""
        hidden = self.patch_embedding(t, pixels)
        return resampled(t, hidden, self.position_embedding_table, rows, *taps_of(t, rows))


class MuseTower(Module):
    """The tower."""

    def __init__(self, v: Config) -> None:
        hidden = v.integer("hidden_size", default=1536)
        heads = v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        wide = v.integer("intermediate_size", default=8960)
        depth = v.integer("num_hidden_layers", default=50, high=MAX_LAYERS)
        act = known(v.text("hidden_act", "gelu"), "config.vision_config.hidden_act")
        kinds = v.entries.get("layer_types")
        whole = [(index + 1) % 4 == 0 or index == depth - 1 for index in range(depth)]
        if isinstance(kinds, (list, tuple)) and len(kinds) >= depth:
            whole = [kind == "full_attention" for kind in kinds[:depth]]
        self.merge = v.integer("merge_size", default=2, high=1_024)
        self.patch_embedder = MusePatches(v, hidden)
        self.ln_pre = LayerNorm(hidden)
        self.layers = Stack(lambda sees_all: MuseBlock(hidden, wide, heads, act, whole=sees_all), whole)
        self.ln_post = LayerNorm(hidden)
        self.head, self._hidden = hidden // heads, hidden

    @property
    def patch_embed(self) -> MusePatches:
        """The patches."""
        return self.patch_embedder

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to (tokens, hidden of several patches)."""
        embeddings = t.local(self.patch_embedder(t, pixels, grid.rows))
        hidden = by_window(t, self.ln_pre(t, embeddings), "patches by window")
        t.local(t.new(grid.rows * 2, "int64", 2, "vision positions"))
        call.shared["rotary"] = self._tables(t, grid.rows, hidden.dtype)
        call.beside = Windows(grid, 1, self.patch_embedder.side)
        hidden = walk_stack(t, name, self.layers.layers, hidden, call, checkpointing=call.checkpointing)
        hidden = self.ln_post(t, by_window(t, hidden, "patches in their order"))
        order = t.new(grid.rows, "int64", 1, "patches in the order of tokens")
        hidden = ops.indexed(t, hidden, order, hidden.numel, self._hidden, "tower's states, shuffled once")
        return [ops.copy(t, hidden, "tower's states, shuffled").view(self._hidden * self.merge**2)]

    def _tables(self, t: Tape, rows: Size, dtype: str) -> tuple[Tensor, Tensor]:
        """In the dtype of the states."""
        cos, sin = VisionTables(self.head).made(t, rows)
        tables = ops.cast(t, cos, dtype, "rotary: cos"), ops.cast(t, sin, dtype, "rotary: sin")
        t.end(*(table for table in (cos, sin) if table not in tables))
        return tables


class MuseAdapter(Module):
    """Two layers, each activated."""

    def __init__(self, inputs: int, hidden: int, act: str) -> None:
        self.fc1 = Linear(inputs, hidden, name="projector: first")
        self.fc2 = Linear(hidden, hidden, name="projector: second")
        self._act = act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (tokens, inputs) to (tokens, hidden)."""
        x = activation(t, self.fc1(t, x), self._act, "projector: activated")
        return activation(t, self.fc2(t, x), self._act, "projector: activated")


class MuseMedia(QwenMedia):
    """Tower, adapter, a layer and a norm."""

    tower, projector = "vision_tower", "vision_adapter"
    blocks, copies_ids = "layers", True
    words = Media.words

    @property
    def projectors(self) -> tuple[str, ...]:
        """Two."""
        return (self.projector, "vision_projection")

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return MuseTower(v)

    def behind(self, outer: Config) -> list[tuple[str, Module]]:
        """Both projectors; the norm has no weight."""
        wide = outer.integer("projector_hidden_size", default=4096)
        act = known(outer.text("projector_hidden_act", "gelu"), "config.projector_hidden_act")
        self._adapter = MuseAdapter(outer.integer("out_hidden_size", default=6144), wide, act)
        self._projection = Linear(wide, self._width, name="projector")
        self._norm = PowerNorm(self._width, scaled=False)
        return [(self.projector, self._adapter), ("vision_projection", self._projection)]

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Nothing: places are found by the tokens."""
        return []

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """The grid whose shape is nearest, of at most so many tokens."""
        side = self._visual.patch_embed.patch * self._merge
        down, across = fitted(height, width, side, MOST_TOKENS)
        return down * side, across * side

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """As Qwen's.

        Raises:
            InvalidInput: the layer on the patches is packed.
        """
        refuse_packed(self._visual.patch_embed.proj.weight, f"{self.below}{self.tower}")
        return super().run(t, hidden, call, pictures)

    def projected(self, t: Tape, found: list[Tensor]) -> list[Tensor]:
        """Projected and normed."""
        (states,) = found
        features = self._adapter(t, states)
        features = self._projection(t, features)
        return [states, self._norm(t, features)]


def fitted(height: int, width: int, side: int, most: int) -> tuple[int, int]:
    """Squares down and across.

    Source: models/muse_glimmer/image_processing_muse_glimmer.py, `smart_resize`.
    """
    down, across = height / side, width / side
    ratio = across / down
    if down * across > most:
        down = (most / ratio) ** 0.5
        across = down * ratio
    rows, columns = ({math.floor(x), math.ceil(x)} for x in (down, across))
    grids = {(high, wide) for high in rows for wide in columns if min(high, wide) >= 1 and high * wide <= most}
    grids = grids or {(max(1, round(down)), max(1, round(across)))}
    return min(grids, key=lambda grid: abs(grid[0] / grid[1] - height / width))

"""Kimi K2.5's tower beside DeepSeek-V3's layers: positions resampled from a grid by cubic weights, four patches in a token.

Source: transformers 5.23, models/kimi_k25/{modeling,image_processing}_kimi_k25.py (at most 16,384 patches, 512 on a side, its
defaults). Videos are not modelled.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.families.qwen2_vl import PlainVisionBlock
from loralens.core.architecture.families.qwen_vision import Grid, QwenMedia, SplitVisionAttention, VisionTables
from loralens.core.architecture.media import Media
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import derivatives, ops
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import embedding_bag
from loralens.core.tape.size import TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

MOST_PATCHES: Final = 16_384
LONGEST_SIDE: Final = 512  # in patches
CUBIC_TAPS: Final = 16  # places of the grid that a patch's position is a sum of


class KimiPositions(Module):
    """A learned grid of vectors, and a fixed one for every frame."""

    multiplies = False  # they are added

    def __init__(self, v: Config, hidden: int) -> None:
        sides = (v.integer(f"pos_emb_{name}", default=64, high=65_536) for name in ("height", "width"))
        self.position_embeddings = Parameter((*sides, hidden))
        self.frames = v.integer("pos_emb_time", default=4, high=65_536)
        self._hidden = hidden

    def forward(self, t: Tape, hidden: Tensor, rows: Size) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        table = t.parameter(self.position_embeddings).view(self._hidden)
        places = t.local(t.new(rows * CUBIC_TAPS, "int64", CUBIC_TAPS, "vision positions: places"))
        weights = t.local(t.new(rows * CUBIC_TAPS, "float32", CUBIC_TAPS, "vision positions: weights"))
        cast = ops.cast(t, weights, table.dtype, "vision positions: weights, cast")
        spatial = embedding_bag(t, table, places, cast, rows * self._hidden, "position embeddings")
        if cast is not weights:
            t.end(cast)
        with t.temporary(rows, "int64", 1, "vision positions: frames"):
            temporal = t.new(rows * self._hidden, "float32", self._hidden, "vision positions: of the frame")
        whole = t.local(ops.add(t, spatial, temporal, "position embeddings, in space and time"))
        t.end(spatial, temporal)
        return ops.add(t, hidden, ops.cast(t, whole, hidden.dtype, "positions, cast back"), "patches in their places")


class KimiPatches(Module):
    """A vector for each patch, and its position."""

    frames = 1

    def __init__(self, v: Config, hidden: int) -> None:
        self.patch = v.integer("patch_size", default=14, high=65_536)
        self.values = 3 * self.patch**2
        self.proj = Convolution(3, hidden, self.patch, self.patch, name="patch embeddings")
        self.pos_emb = KimiPositions(v, hidden)

    def forward(self, t: Tape, pixels: Tensor, rows: Size) -> Tensor:
        """Shapes: (rows, values of a patch) to (rows, hidden)."""
        return self.pos_emb(t, self.proj(t, pixels, rows), rows)


class KimiBlock(PlainVisionBlock):
    """A matrix each for query, key and value."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str) -> None:
        super().__init__(hidden, intermediate, heads, act, ("fc1", "fc2"))
        self.attn = SplitVisionAttention(hidden, heads)


class KimiTower(Module):
    """The tower; its patches are gathered by token, and averaged over frames."""

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=1152), v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        wide = v.integer("intermediate_size", default=4304)
        depth = v.integer("num_hidden_layers", default=27, high=MAX_LAYERS)
        act = known(v.text("hidden_act", "gelu_pytorch_tanh"), "config.vision_config.hidden_act")
        self.merge, _ = v.pair("merge_kernel_size", 2)
        self.patch_embed = KimiPatches(v, hidden)
        self.layers = Stack(lambda _: KimiBlock(hidden, wide, heads, act), [None] * depth)
        self.final_layernorm = LayerNorm(hidden)
        self.head, self.hidden = hidden // heads, hidden

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to (rows, hidden), twice."""
        hidden = self.patch_embed(t, pixels, grid.rows)
        t.local(t.new(grid.rows * 2, "int64", 2, "vision positions"))
        call.shared["rotary"] = VisionTables(self.head).made(t, grid.rows)
        call.beside = grid
        hidden = walk_stack(t, name, self.layers.layers, hidden, call, checkpointing=call.checkpointing)
        hidden = self.final_layernorm(t, hidden)
        order = t.local(t.new(grid.rows, "int64", 1, "patches in the order of tokens"))
        gathered = ops.indexed(t, hidden, order, hidden.numel, self.hidden, "tower's states, by token")
        pooled = derivatives.mean_of(t, gathered, "tower's states, averaged over frames", numel=hidden.numel)
        t.end(gathered)
        return [hidden, pooled]


class KimiProjector(Module):
    """A norm, neighbouring patches side by side, and two layers."""

    def __init__(self, inputs: int, merged: int, hidden: int) -> None:
        self.pre_norm = LayerNorm(inputs)
        self.in_proj = Linear(merged, merged, True, name="projector: first")
        self.out_proj = Linear(merged, hidden, True, name="projector: second")
        self._merged = merged

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (tokens, hidden)."""
        x = self.in_proj(t, self.pre_norm(t, x).view(self._merged))
        return self.out_proj(t, activation(t, x, "gelu", "projector: activated"))


class KimiMedia(QwenMedia):
    """Tower and projector."""

    tower, projector = "vision_tower", "mm_projector"
    blocks, copies_ids = "layers", True
    words = Media.words

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        root.expert_targets = None  # PEFT knows DeepSeek's stacked experts by its model type alone
        super().__init__(root, outer)

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return KimiTower(v)

    def behind(self, outer: Config) -> list[tuple[str, Module]]:
        """The projector."""
        inputs = outer.integer("projection_hidden_size", default=1152)
        self._projector = KimiProjector(inputs, self._visual.hidden * self._merge**2, self._width)
        return [(self.projector, self._projector)]

    def buffer_bytes(self) -> int:
        """And the vectors of frames, one of zeros among them."""
        frames: int = self._visual.patch_embed.pos_emb.frames
        return super().buffer_bytes() + (frames + 1) * self._visual.hidden * 4

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Nothing: places are found by the tokens."""
        return []

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Made smaller where there are too many patches, never larger; padded to whole tokens."""
        return padded(height, width, self._visual.patch_embed.patch, self._merge)

    def placed(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """The model's forward keeps where placeholders are."""
        hidden = super().placed(t, hidden, call)
        call.held.append(t.new(TOKENS, "bool", 1, "places of media"))
        return hidden

    def projected(self, t: Tape, found: list[Tensor]) -> list[Tensor]:
        """Projected."""
        states, pooled = found
        return [states, self._projector(t, pooled)]


def padded(height: int, width: int, patch: int, merge: int) -> tuple[int, int]:
    """Both sides after resizing, as multiples of a token's.

    Source: models/kimi_k25/image_processing_kimi_k25.py, `navit_resize`.
    """
    patches = max(1, height // patch) * max(1, width // patch)
    longest = LONGEST_SIDE * patch
    scale = min(1.0, math.sqrt(MOST_PATCHES / patches), longest / height, longest / width)
    high, wide = (min(max(1, int(side * scale)), longest) for side in (height, width))
    factor = patch * merge
    return -(-high // factor) * factor, -(-wide // factor) * factor

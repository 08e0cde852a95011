"""Qwen2.5-VL: a tower whose layers see windows of a picture, some the whole of it; four patches become one token.

Source: transformers 5.23, models/qwen2_5_vl/modeling_qwen2_5_vl.py, vision_utils.py (windows) and
models/qwen2_vl/image_processing_qwen2_vl.py (`smart_resize`).
"""

from __future__ import annotations

from dataclasses import dataclass

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.families.qwen_vision import (
    Grid,
    PatchEmbed,
    PatchMerger,
    QwenMedia,
    VisionAttention,
    VisionTables,
)
from loralens.core.architecture.module import Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.packed import Pieces
from loralens.core.tape.size import BATCH, ONE
from loralens.core.tape.tape import Tape


class VisionBlock(Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str, *, whole: bool) -> None:
        self.norm1, self.norm2 = RMSNorm(hidden), RMSNorm(hidden)
        self.attn: Module = VisionAttention(hidden, heads)
        self._whole = whole
        self.mlp = GatedMLP(hidden, intermediate, True, act)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        pieces = call.beside.pieces(whole=self._whole)
        hidden = ops.add(
            t, hidden, self.attn(t, self.norm1(t, hidden), call, pieces), "residual stream after attention"
        )
        return ops.add(t, hidden, self.mlp(t, self.norm2(t, hidden)), "residual stream after the layer")


@dataclass(frozen=True, slots=True)
class Windows:
    """How many pieces attention works on, and how long the first one is: in windows, and in whole pictures or frames."""

    grid: Grid
    merge: int
    side: int  # of a window, in merged patches

    def pieces(self, *, whole: bool) -> Pieces:
        """Of a layer that sees whole pictures, or of one that sees windows."""
        grid = self.grid
        if whole:
            return grid.pieces()
        high, wide = (self._cut(length // self.merge) for length in (grid.height, grid.width))
        rows = [down * across * self.merge**2 for down in high for across in wide]
        several = BATCH * (grid.pictures * grid.frames)
        return Pieces(ONE * rows[0], several * len(rows), several * sum(count**2 for count in rows))

    def _cut(self, length: int) -> list[int]:
        """Windows along one side, the last one perhaps shorter."""
        return [min(self.side, length - start) for start in range(0, length, self.side)]


class Qwen25VisionTransformer(Module):
    """The tower with its merger."""

    def __init__(self, v: Config) -> None:
        hidden = v.integer("hidden_size", default=3584)
        intermediate = v.integer("intermediate_size", default=3420)
        depth = v.integer("depth", default=32, high=MAX_LAYERS)
        heads = v.integer("num_heads", default=16)
        v.divides("num_heads", hidden, heads)
        act = known(v.text("hidden_act", "silu"), "config.vision_config.hidden_act")
        given = v.integers("fullatt_block_indexes", MAX_LAYERS)
        whole = {7, 15, 23, 31} if given is None else set(given)
        self.merge = v.integer("spatial_merge_size", default=2, high=1_024)
        self.patch_embed = PatchEmbed(v, hidden, bias=False)
        self.blocks = Stack(
            lambda sees_all: self.block(hidden, intermediate, heads, act, whole=sees_all),
            [index in whole for index in range(depth)],
        )
        self.merger = PatchMerger(RMSNorm(hidden), hidden * self.merge**2, v.integer("out_hidden_size", default=3584))
        self._side = v.integer("window_size", default=112, high=2**20) // self.merge // self.patch_embed.patch
        self.head = hidden // heads

    def block(self, hidden: int, intermediate: int, heads: int, act: str, *, whole: bool) -> Module:
        """A layer."""
        return VisionBlock(hidden, intermediate, heads, act, whole=whole)

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to (rows, hidden) and (tokens, out)."""
        t.local(t.new(grid.rows * 2, "int64", 2, "vision positions"))
        hidden = self.patch_embed(t, pixels, grid.rows)
        if call.input_gradients:
            t.require_grad(hidden)
        hidden = by_window(t, hidden, "patches by window")
        cos, sin = VisionTables(self.head).made(t, grid.rows)
        call.shared["rotary"] = tuple(by_window(t, table, "rotary table by window") for table in (cos, sin))
        t.end(cos, sin)
        call.beside = Windows(grid, self.merge, self._side)
        hidden = walk_stack(t, name, self.blocks.layers, hidden, call, checkpointing=call.checkpointing)
        merged = self.merger(t, hidden)
        merged = by_window(t, merged, "tokens in their order")
        return [hidden, merged]


def by_window(t: Tape, x: Tensor, label: str) -> Tensor:
    """Rows in another order; the order itself lies on the host."""
    assert isinstance(x.width, int)
    return ops.indexed(t, x, None, x.numel, x.width, label)


class Qwen25VL(QwenMedia):
    """Qwen2.5-VL's tower."""

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return Qwen25VisionTransformer(v)

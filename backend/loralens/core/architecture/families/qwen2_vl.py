"""Qwen2-VL: a tower of plain layers that see whole pictures; four patches become one token.

Source: transformers 5.23, models/qwen2_vl/modeling_qwen2_vl.py.
"""

from __future__ import annotations

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import LayerNorm, PlainMLP
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
from loralens.core.tape.tape import Tape


class PlainVisionBlock(Module):
    """Pre-norm attention and MLP of two layers."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str, names: tuple[str, str]) -> None:
        self.norm1, self.norm2 = LayerNorm(hidden), LayerNorm(hidden)
        self.attn: Module = VisionAttention(hidden, heads)
        self.mlp = PlainMLP(hidden, intermediate, names, act)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        pieces = self.pieces(call)
        hidden = ops.add(
            t, hidden, self.attn(t, self.norm1(t, hidden), call, pieces), "residual stream after attention"
        )
        return ops.add(t, hidden, self.mlp(t, self.norm2(t, hidden)), "residual stream after the layer")

    def pieces(self, call: Call) -> Pieces:
        """What sees itself alone: a frame."""
        found: Pieces = call.beside.pieces()
        return found


class Qwen2VisionTransformer(Module):
    """The tower with its merger; `embed_dim` is its width, `hidden_size` the language model's."""

    def __init__(self, v: Config) -> None:
        hidden, out = v.integer("embed_dim", default=1280), v.integer("hidden_size", default=3584)
        heads = v.integer("num_heads", default=16)
        v.divides("num_heads", hidden, heads)
        wide = hidden * v.integer("mlp_ratio", default=4, high=1_024)
        act = known(v.text("hidden_act", "quick_gelu"), "config.vision_config.hidden_act")
        depth = v.integer("depth", default=32, high=MAX_LAYERS)
        self.merge = v.integer("spatial_merge_size", default=2, high=1_024)
        self.patch_embed = PatchEmbed(v, hidden, bias=False)
        self.blocks = Stack(lambda _: PlainVisionBlock(hidden, wide, heads, act, ("fc1", "fc2")), [None] * depth)
        self.merger = PatchMerger(LayerNorm(hidden), hidden * self.merge**2, out)
        self.head = hidden // heads

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to (rows, hidden) and (tokens, out)."""
        t.local(t.new(grid.rows * 2, "int64", 2, "vision positions"))
        hidden = self.patch_embed(t, pixels, grid.rows)
        if call.input_gradients:
            t.require_grad(hidden)
        call.shared["rotary"] = VisionTables(self.head).made(t, grid.rows)
        call.beside = grid
        hidden = walk_stack(t, name, self.blocks.layers, hidden, call, checkpointing=call.checkpointing)
        return [hidden, self.merger(t, hidden)]


class Qwen2VL(QwenMedia):
    """Qwen2-VL's tower."""

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return Qwen2VisionTransformer(v)

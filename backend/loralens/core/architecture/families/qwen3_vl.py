"""Qwen3-VL: learned positions resampled to the picture, and features of some layers added behind the first decoder layers.

Qwen3.5's tower is the same without those features.

Source: transformers 5.23, models/{qwen3_vl,qwen3_5}/modeling_*.py, vision_utils.py (interpolation); limits of the published
preprocessor_config.json (65,536 to 16,777,216 pixels) and video_preprocessor_config.json (4,096 to 25,165,824 in all frames).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.families.qwen2_vl import PlainVisionBlock
from loralens.core.architecture.families.qwen_vision import (
    Grid,
    PatchEmbed,
    QwenMedia,
    VisionTables,
    joined,
    resampled,
    taps_of,
)
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.scatter import put

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.tape import Tape


class Merger(Module):
    """Neighbouring patches side by side, and two layers to the language model's width."""

    def __init__(self, hidden: int, merged: int, out: int, *, late_norm: bool) -> None:
        self.norm = LayerNorm(merged if late_norm else hidden)
        self.linear_fc1 = Linear(merged, merged, True, name="merger: first")
        self.linear_fc2 = Linear(merged, out, True, name="merger: second")
        self._merged, self._late_norm = merged, late_norm

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (tokens, out)."""
        x = self.norm(t, x.view(self._merged) if self._late_norm else x).view(self._merged)
        x = self.linear_fc2(t, activation(t, self.linear_fc1(t, x), "gelu", "merger: activated"))
        return x


class Qwen3VisionTransformer(Module):
    """The tower with its mergers."""

    mergers = "deepstack_merger_list"

    def __init__(self, v: Config) -> None:
        hidden, out = v.integer("hidden_size", default=1152), v.integer("out_hidden_size", default=3584)
        intermediate = v.integer("intermediate_size", default=4304)
        depth = v.integer("depth", default=27, high=MAX_LAYERS)
        heads = v.integer("num_heads", default=16)
        v.divides("num_heads", hidden, heads)
        act = known(v.text("hidden_act", "gelu_pytorch_tanh"), "config.vision_config.hidden_act")
        self.merge = v.integer("spatial_merge_size", default=2, high=1_024)
        merged = hidden * self.merge**2
        self.patch_embed = PatchEmbed(v, hidden, bias=True, patch=16)
        self.pos_embed = Embedding(v.integer("num_position_embeddings", default=2304), hidden)
        self.blocks = Stack(
            lambda _: PlainVisionBlock(hidden, intermediate, heads, act, ("linear_fc1", "linear_fc2")), [None] * depth
        )
        self.merger = self.merging(hidden, merged, out, late_norm=False)
        self.early = self.taken(v)
        if self.early:
            setattr(self, self.mergers, Module())
        for index in range(len(self.early)):
            setattr(getattr(self, self.mergers), str(index), self.merging(hidden, merged, out, late_norm=True))
        self.head = hidden // heads

    def merging(self, hidden: int, merged: int, out: int, *, late_norm: bool) -> Module:
        """One of the mergers."""
        return Merger(hidden, merged, out, late_norm=late_norm)

    def taken(self, v: Config) -> list[int]:
        """The layers whose features the language model's first layers get."""
        given = v.integers("deepstack_visual_indexes", MAX_LAYERS)
        return [8, 16, 24] if given is None else given

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to (rows, hidden), (tokens, out) and the early features, alike."""
        rows = grid.rows
        indices, weights = (t.local(each) for each in taps_of(t, rows))
        t.local(t.new(rows * 2, "int64", 2, "vision positions"))
        hidden = self.patch_embed(t, pixels, rows)
        hidden = resampled(t, hidden, self.pos_embed, rows, indices, weights)
        call.shared["rotary"] = VisionTables(self.head).made(t, rows)
        call.beside = grid
        features: list[Tensor] = []
        start = 0
        for end in [*(index + 1 for index in self.early), len(self.blocks)]:
            layers = self.blocks.layers[start:end]
            hidden = walk_stack(t, name, layers, hidden, call, checkpointing=call.checkpointing, first=start)
            if len(features) < len(self.early):
                features.append(getattr(getattr(self, self.mergers), str(len(features)))(t, hidden))
            start = end
        return [hidden, self.merger(t, hidden), *features]


def deepened(t: Tape, hidden: Tensor, extra: Tensor) -> Tensor:
    """Hidden states with features added in the places of pictures: a copy, whose rows are read, added to and written back."""
    extra = ops.cast(t, extra, hidden.dtype, "early features, cast")
    hidden = ops.copy(t, hidden, "hidden states to be deepened")
    assert isinstance(hidden.width, int)
    rows = ops.indexed(t, hidden, None, extra.numel, hidden.width, "hidden states of pictures")
    rows = ops.add(t, rows, extra, "hidden states of pictures, deepened")
    return put(t, hidden, None, rows, "hidden states written back")


class Qwen3VL(QwenMedia):
    """Qwen3-VL's tower; features of its layers go to the language model's first layers."""

    limits = (65_536, 16_777_216)
    video_limits = (4_096, 25_165_824)
    video_limits_together = True

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return Qwen3VisionTransformer(v)

    def received(self, t: Tape, call: Call, features: dict[str, list[Tensor]]) -> None:
        """The early features, joined, wait for the language model's layers."""
        call.beside = [joined(t, early, "early features, joined") for found in features.values() for early in found[2:]]


class PlainVisionTransformer(Qwen3VisionTransformer):
    """The tower without early features."""

    def taken(self, v: Config) -> list[int]:
        """None."""
        return []


class Qwen35VL(Qwen3VL):
    """Qwen3.5's tower."""

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return PlainVisionTransformer(v)

"""ERNIE 4.5 VL's tower: patches of any picture by a linear layer, and a resampler to the language model's width.

Source: transformers 5.23, models/ernie4_5_vl_moe/{modeling,image_processing_pil}_ernie4_5_vl_moe.py (3,136 to 4,842,768 pixels, its
default limits). Videos are not modelled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import LayerNorm, RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.families.qwen2_vl import PlainVisionBlock
from loralens.core.architecture.families.qwen_vision import Grid, QwenMedia, VisionTables
from loralens.core.architecture.media import Media, refuse_packed
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.size import TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.tape import Tape


class LinearPatches(Module):
    """A vector for each patch, by a linear layer."""

    frames = 1

    def __init__(self, v: Config, hidden: int) -> None:
        self.patch = v.integer("patch_size", default=14, high=65_536)
        self.values = v.integer("in_channels", default=3) * self.patch**2
        self.proj = Linear(self.values, hidden, name="patch embeddings")

    def forward(self, t: Tape, pixels: Tensor, rows: Size) -> Tensor:
        """Shapes: (rows, values of a patch) to (rows, hidden)."""
        refuse_packed(self.proj.weight, "model.vision_tower")
        return self.proj(t, ops.cast(t, pixels, self.proj.weight.dtype, "patches in the weights' dtype"))


class ErnieTower(Module):
    """The tower."""

    def __init__(self, v: Config) -> None:
        hidden, heads = (
            v.integer("hidden_size", default=1280),
            v.integer("num_heads", "num_attention_heads", default=16),
        )
        v.divides("num_heads", hidden, heads)
        wide = v.integer("intermediate_size", default=5120)
        act = known(v.text("hidden_act", "quick_gelu"), "config.vision_config.hidden_act")
        depth = v.integer("depth", "num_hidden_layers", default=32, high=MAX_LAYERS)
        self.merge = v.integer("spatial_merge_size", default=2, high=1_024)
        self.patch_embed = LinearPatches(v, hidden)
        self.blocks = Stack(lambda _: PlainVisionBlock(hidden, wide, heads, act, ("fc1", "fc2")), [None] * depth)
        self.ln = LayerNorm(hidden)
        self.head, self.hidden = hidden // heads, hidden

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to (rows, hidden)."""
        layers, checkpointing = self.blocks.layers, call.checkpointing
        hidden = walk_stack(t, name, layers, self._embedded(t, pixels, call, grid), call, checkpointing=checkpointing)
        return [self.ln(t, hidden)]

    def _embedded(self, t: Tape, pixels: Tensor, call: Call, grid: Grid) -> Tensor:
        t.local(t.new(grid.rows * 2, "int64", 2, "vision positions"))
        hidden = self.patch_embed(t, pixels, grid.rows)
        if call.input_gradients:
            t.require_grad(hidden)
        call.shared["rotary"] = VisionTables(self.head).made(t, grid.rows)
        call.beside = grid
        return hidden


class ResamplerMLP(Module):
    """Two layers and a norm."""

    def __init__(self, inputs: int, outputs: int, label: str) -> None:
        self.fc1 = Linear(inputs, outputs, True, name=f"{label}: first")
        self.fc2 = Linear(outputs, outputs, True, name=f"{label}: second")
        self.ln = LayerNorm(outputs)

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows, outputs)."""
        x = self.fc1(t, x)
        x = ops.gelu(t, x, "resampler: activated")
        x = self.fc2(t, x)
        return self.ln(t, x)


class ErnieResampler(Module):
    """Neighbouring patches side by side, then two moments, which of a picture are the same."""

    def __init__(self, merged: int, moments: int, hidden: int) -> None:
        self.spatial_linear = ResamplerMLP(merged, merged, "resampler, neighbours")
        self.temporal_linear = ResamplerMLP(merged * moments, merged, "resampler, moments")
        self.mlp = Linear(merged, hidden, True, name="resampler: last")
        self.after_norm = RMSNorm(hidden)
        self._merged, self._moments = merged, moments

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to (tokens, hidden)."""
        x = x.view(self._merged)
        x = self.spatial_linear(t, x)
        x = self._twice(t, x)
        x = self.temporal_linear(t, x)
        x = self.mlp(t, x)
        return self.after_norm(t, x)

    def _twice(self, t: Tape, x: Tensor) -> Tensor:
        tokens = ops.divide(x.numel, self._merged)
        places = [t.new(tokens, "int64", 1, "resampler: places of a moment") for _ in range(self._moments)]
        parts = [ops.indexed(t, x, index, x.numel, self._merged, "resampler: one moment") for index in places]
        return ops.cat(t, parts, self._merged * self._moments, "resampler: moments side by side")


class ErnieVLMedia(QwenMedia):
    """Tower and resampler."""

    tower, projector = "vision_tower", "resampler_model"
    words = Media.words
    limits = (56 * 56, 28 * 28 * 6_177)

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return ErnieTower(v)

    def behind(self, outer: Config) -> list[tuple[str, Module]]:
        """The resampler."""
        v = outer.nested("vision_config") or Config({})
        merged = self._visual.hidden * self._merge**2
        self._resampler = ErnieResampler(merged, v.integer("temporal_merge_size", default=2, high=1_024), self._width)
        return [(self.projector, self._resampler)]

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """A kind for every token, and another that goes by its experts."""
        return [*super().beside(recipe), ("kinds of tokens for the experts", TOKENS * 8)]

    def projected(self, t: Tape, found: list[Tensor]) -> list[Tensor]:
        """Resampled."""
        (states,) = found
        return [states, self._resampler(t, states)]

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """Without pictures their experts too."""
        reached = self.pictures(recipe) is not None
        return () if reached else [*self.parameters(), *self.root.for_pictures()]

"""SAM's tower: layers that see windows, a few that see the whole picture, and a neck of convolutions.

Source: transformers 5.23, models/{got_ocr2,deepseek_ocr2}/modeling_*.py (`GotOcr2VisionEncoder`, `DeepseekOcr2SamVisionEncoder`, and
their parts).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import LayerNorm, PlainMLP
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.families.sam_attention import (
    FusedSamAttention,
    SamAttention,
    Seen,
    laid_by_place,
    relaid,
    reordered,
)
from loralens.core.architecture.module import Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import interpolated
from loralens.core.tape.size import ONE, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.tape import Tape


class SamLayer(Module):
    """Pre-norm attention within windows, or over the whole picture (`window` 0), and an MLP."""

    def __init__(self, v: Config, hidden: int, heads: int, grid: int, window: int, wide: int, *, fused: bool) -> None:
        act = known(v.text("hidden_act", "gelu"), "config.vision_config.hidden_act")
        self.layer_norm1 = LayerNorm(hidden)
        self.attn = (FusedSamAttention if fused else SamAttention)(v, hidden, heads, window or grid)
        self.layer_norm2 = LayerNorm(hidden)
        self.mlp = PlainMLP(hidden, v.integer("mlp_dim", default=wide), ("lin1", "lin2"), act)
        self._window = window

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (pictures * grid**2, hidden) to the same."""
        residual, window, seen = hidden, self._window, call.beside
        windows = -(-seen.grid // window) if window else 0
        hidden = self.layer_norm1(t, hidden)
        if window:
            hidden = _cut(t, hidden, seen.grid, window * windows, windows > 1)
        inside = Seen(window, seen.several or windows > 1) if window else seen
        hidden, _weights = self.attn(t, hidden, inside)
        if window:
            hidden = _join(t, hidden, seen.grid, window * windows, windows > 1)
        else:
            hidden = laid_by_place(t, hidden, self.attn.proj)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        normed = self.layer_norm2(t, hidden)
        out = laid_by_place(t, self.mlp(t, normed), self.mlp.lin2)
        return ops.add(t, hidden, out, "residual stream after the layer")


def _cut(t: Tape, hidden: Tensor, grid: int, whole: int, several: bool) -> Tensor:
    """Windows, the last ones filled up: `whole` places down and across."""
    hidden = derivatives.padded(t, hidden, "windows filled up", numel=hidden.numel // grid**2 * whole**2)
    return relaid(t, hidden, "windows") if several else hidden


def _join(t: Tape, windows: Tensor, grid: int, whole: int, several: bool) -> Tensor:
    """The picture again, without what filled the windows up."""
    if several:
        windows = relaid(t, windows, "windows joined")
    if whole == grid:
        return windows
    narrow = windows.numel // whole * grid
    cut = ops.cut(t, windows, "rows of the picture", numel=narrow)
    cut = ops.cut(t, cut, "columns of the picture", numel=narrow // whole * grid)
    return ops.copy(t, cut, "picture in one piece")


class SamPatches(Module):
    """A vector for each patch."""

    def __init__(self, v: Config, hidden: int, patch: int) -> None:
        self.projection = Convolution(
            v.integer("num_channels", default=3), hidden, patch, patch, name="patch embeddings"
        )

    def forward(self, t: Tape, pixels: Tensor, places: Size) -> Tensor:
        """Shapes: (pictures * values) to (places, hidden)."""
        out: Tensor = self.projection(t, pixels, places)
        return out


class SamNeck(Module):
    """Two convolutions, each behind it a norm."""

    def __init__(self, hidden: int, channels: int) -> None:
        self.conv1 = Convolution(hidden, channels, 1, 1, name="neck: first", bias=False)
        self.layer_norm1 = LayerNorm(channels)
        self.conv2 = Convolution(channels, channels, 3, 3, name="neck: second", bias=False)
        self.layer_norm2 = LayerNorm(channels)

    def forward(self, t: Tape, hidden: Tensor, places: Size) -> Tensor:
        """Shapes: (places, hidden) to (places, channels)."""
        hidden = self.conv1(t, hidden, places)
        hidden = self.layer_norm1(t, hidden)
        hidden = self.conv2(t, hidden, places)
        hidden = self.layer_norm2(t, hidden)
        return hidden


class SamTower(Module):
    """The tower. `fused`: by the efficient kernel; `wide`: of the MLP, where the config does not say."""

    multiplies = False  # the positions are added

    def __init__(self, v: Config, *, wide: int, fused: bool = False) -> None:
        width = v.integer("hidden_size", default=768)
        heads = v.integer("num_attention_heads", default=12)
        v.divides("num_attention_heads", width, heads)
        side = v.integer("image_size", default=1024, high=65_536)
        patch = v.integer("patch_size", default=16, high=side)
        grid, window = side // patch, v.integer("window_size", default=14, low=0, high=65_536)
        layers = v.integer("num_hidden_layers", default=12, high=MAX_LAYERS)
        everywhere = v.entries.get("global_attn_indexes", (2, 5, 8, 11))
        self.patch_embed = SamPatches(v, width, patch)
        self.pos_embed = Parameter((1, grid, grid, width)) if v.flag("use_abs_pos", True) else None
        self.layers = Stack(
            lambda windowed: SamLayer(v, width, heads, grid, window if windowed else 0, wide, fused=fused),
            [at not in everywhere for at in range(layers)],
        )
        self.hidden = v.integer("output_channels", default=256)
        self.neck = SamNeck(width, self.hidden)
        self.values, self.tokens, self.grid = v.integer("num_channels", default=3) * side**2, grid**2, grid
        self.patch, self.width = patch, width
        self.unread: list[Module] = []

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, seen: Seen, name: str) -> Tensor:
        """Shapes: (pictures * values) to (pictures * grid**2, output channels)."""
        places = images * seen.grid**2
        hidden = walk_stack(
            t,
            f"{name}.layers",
            self.layers.layers,
            self._placed(t, pixels, call, places, seen),
            replace(call, beside=seen),
            checkpointing=call.checkpointing,
        )
        out: Tensor = self.neck(t, reordered(t, hidden), places)
        return out

    def _placed(self, t: Tape, pixels: Tensor, call: Call, places: Size, seen: Seen) -> Tensor:
        hidden: Tensor = self.patch_embed(t, pixels, places)
        if call.input_gradients:
            t.require_grad(hidden, copied=True)  # the channels lie first in memory, in the gradient last
        if self.pos_embed is not None:
            positions = self._positions(t, t.parameter(self.pos_embed), seen.grid)
            if seen.several:
                positions = ops.broadcast(t, positions, hidden.numel, "position embeddings", summed=True)
            else:
                positions.numel = hidden.numel
            hidden = ops.add(t, hidden, positions, "patches in their places")
        return hidden

    def _positions(self, t: Tape, positions: Tensor, grid: int) -> Tensor:
        """Sampled in float32, where there are more or fewer places."""
        if grid == self.grid:
            return positions
        dtype = positions.dtype
        positions = ops.cast(t, positions, "float32", "position embeddings in float32")
        positions = interpolated(t, positions, ONE * (grid**2 * self.width), "position embeddings, sampled")
        return ops.cast(t, positions, dtype, "position embeddings, cast")

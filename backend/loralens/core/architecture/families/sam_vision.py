"""SAM's tower of pictures of one size: layers that see windows, a few that see the whole picture, and a neck of convolutions.

How far a query lies from a key, down and across, is learned: two products of the query with tables of distances, whose sum is
as large as the scores.

Source: transformers 5.23, models/got_ocr2/modeling_got_ocr2.py (`GotOcr2VisionEncoder` and its parts).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import LayerNorm, PlainMLP
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.families.qwen_vision import unbound
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import interpolated
from loralens.core.tape.size import ONE, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.tape import Tape


def relaid(t: Tape, x: Tensor, label: str) -> Tensor:
    """A copy in another order of dimensions; its gradient is brought back into the first order by a copy too."""
    return derivatives.repeat(t, x, label)


def reordered(t: Tape, x: Tensor) -> Tensor:
    """x in another order of dimensions, a view; so is its gradient."""
    seen = x.view()
    t.record("another order", [seen], [x], [], lambda g: g.view().as_view())
    return seen


class SamAttention(Module):
    """One matrix for query, key and value; scores with learned distances. `side`: places of a window down and across."""

    def __init__(self, v: Config, hidden: int, heads: int, side: int) -> None:
        self.qkv = Linear(hidden, 3 * hidden, v.flag("qkv_bias", True), name="attention query, key and value")
        self.proj = Linear(hidden, hidden, True, name="attention output projection")
        self._width = hidden // heads
        self._distances = v.flag("use_rel_pos", True)
        if self._distances:
            self.rel_pos_h = Parameter((2 * side - 1, self._width))
            self.rel_pos_w = Parameter((2 * side - 1, self._width))
        self._hidden, self._heads, self._side = hidden, heads, side
        self._dropout = v.number("attention_dropout", 0.0, 0, 1)

    def forward(self, t: Tape, x: Tensor, several: bool) -> tuple[Tensor, Tensor]:
        """The result, and the probabilities, which the layer holds; `several`: windows.

        Shapes: (windows * side**2, hidden) to the same.
        """
        q, k, v = self._by_head(t, x, several)
        pairs = q.numel // self._width * self._side**2
        flops = pairs * (2 * self._width)
        scaled = ops.scale(t, q, "attention query, scaled")
        weights = ops.matmul(t, scaled, k, pairs, 1, "attention: scores", flops=flops)
        t.end(scaled)
        if self._distances:
            found = self._found(t, q, pairs, several)
            distances = t.local(ops.copy(t, found, "attention: distances by head"))
            t.end(found)
            weights = ops.add(t, weights, distances, "attention: scores with distances")
        weights = ops.cast(
            t, ops.softmax(t, weights, "float32", "attention: softmax in float32"), q.dtype, "attention: probabilities"
        )
        dropped = t.local(ops.dropout(t, weights, self._dropout, "attention: dropout"))
        out = ops.matmul(t, dropped, v, q.numel, self._width, "attention: output by head", flops=flops)
        laid = (relaid if several else ops.copy)(t, out, "attention: output by place").view(self._hidden)
        t.end(out)
        return self.proj(t, laid), weights

    def _by_head(self, t: Tape, x: Tensor, several: bool) -> list[Tensor]:
        """Query, key and value in one tensor, each by head; of one window they are views of what the matrix gives."""
        qkv = t.local(self.qkv(t, x))
        if not several:
            return [part.view(self._width) for part in unbound(t, qkv, self._hidden)]
        whole = relaid(t, qkv, "attention query, key and value: by head").view(3 * self._width)
        return ops.split(t, whole, [self._width] * 3, "attention query, key and value")

    def _found(self, t: Tape, q: Tensor, pairs: Size, several: bool) -> Tensor:
        """The distances, as large as the scores."""
        down = self._places(t, self.rel_pos_h, "rows")
        across = self._places(t, self.rel_pos_w, "columns")
        query = in_order(t, q, "attention query")
        part = q.numel // self._width * self._side
        by_row = ops.copy(t, reordered(t, query), "attention query: by row")
        rows = ops.matmul(t, by_row, down, part, self._side, "attention: distances of rows")
        t.end(by_row)
        by_column = reordered(t, query)
        if not several:
            by_column = ops.copy(t, by_column, "attention query: by column")
        columns = ops.matmul(t, by_column, across, part, self._side, "attention: distances of columns")
        return sum_of_all(t, rows, columns, pairs, "attention: distances")

    def _places(self, t: Tape, table: Parameter, name: str) -> Tensor:
        """The table's row for every pair of places."""
        label = f"attention: table of {name}"
        whole = t.parameter(table)
        if t.autocast is not None:
            whole = ops.cast(t, whole, "float32", f"{label}: input cast by autocast")
        resized = interpolated(t, whole, whole.numel, label)
        return ops.indexed(t, resized, None, ONE * (self._side**2 * self._width), self._width, f"{label}: by pair")


def in_order(t: Tape, x: Tensor, label: str) -> Tensor:
    """x as it lies, a view; its gradient, which lies otherwise, is copied into x's order."""
    seen = x.view()
    numel, dtype, width = x.numel, x.dtype, x.width
    laid = f"gradient: {label}: in order"
    t.record("in order", [seen], [x], [], lambda g: t.new(numel, dtype, width, laid, "temporaries"))
    return seen


def sum_of_all(t: Tape, a: Tensor, b: Tensor, numel: Size, label: str) -> Tensor:
    """a and b, each spread along a dimension of the other; both gradients are summed."""
    out = t.new(numel, a.dtype, a.width, label)
    sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (a, b)]

    def apply(g: Tensor) -> list[Tensor | None]:
        return [t.new(n, d, w, f"gradient: {label}", "temporaries") if wanted else None for n, d, w, wanted in sizes]

    t.record(label, [out], [a, b], [], apply)
    return out


class SamLayer(Module):
    """Pre-norm attention within windows, or over the whole picture (`window` 0), and an MLP."""

    def __init__(self, v: Config, hidden: int, heads: int, grid: int, window: int) -> None:
        act = known(v.text("hidden_act", "gelu"), "config.vision_config.hidden_act")
        self.layer_norm1 = LayerNorm(hidden)
        self.attn = SamAttention(v, hidden, heads, window or grid)
        self.layer_norm2 = LayerNorm(hidden)
        self.mlp = PlainMLP(hidden, v.integer("mlp_dim", default=3072), ("lin1", "lin2"), act)
        self._grid, self._windows = grid, -(-grid // window) if window else 0
        self._whole = self._windows * window  # places down and across, once windows are full

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (pictures * grid**2, hidden) to the same."""
        residual = hidden
        hidden = self.layer_norm1(t, hidden)
        if self._windows:
            hidden = self._cut(t, hidden)
        hidden, _weights = self.attn(t, hidden, call.beside or self._windows > 1)
        hidden = self._join(t, hidden) if self._windows else self._laid(t, hidden, self.attn.proj)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        normed = self.layer_norm2(t, hidden)
        out = self._laid(t, self.mlp(t, normed), self.mlp.lin2)
        return ops.add(t, hidden, out, "residual stream after the layer")

    def _laid(self, t: Tape, out: Tensor, layer: Linear) -> Tensor:
        """What a matrix gives; its gradient comes from the neck, whose convolution lays channels first, and is laid by place.

        An adapter has its own copy of the gradient, when it is scaled.
        """
        return in_order(t, out, layer.label) if layer.adapter is None else out

    def _cut(self, t: Tape, hidden: Tensor) -> Tensor:
        """Windows, the last ones filled up."""
        hidden = derivatives.padded(
            t, hidden, "windows filled up", numel=hidden.numel // self._grid**2 * self._whole**2
        )
        return relaid(t, hidden, "windows") if self._windows > 1 else hidden

    def _join(self, t: Tape, windows: Tensor) -> Tensor:
        """The picture again, without what filled the windows up."""
        if self._windows > 1:
            windows = relaid(t, windows, "windows joined")
        if self._whole == self._grid:
            return windows
        narrow = windows.numel // self._whole * self._grid
        cut = ops.cut(t, windows, "rows of the picture", numel=narrow)
        cut = ops.cut(t, cut, "columns of the picture", numel=narrow // self._whole * self._grid)
        return ops.copy(t, cut, "picture in one piece")


class SamPatches(Module):
    """A vector for each patch."""

    def __init__(self, v: Config, hidden: int, patch: int, places: int) -> None:
        self.projection = Convolution(
            v.integer("num_channels", default=3), hidden, patch, patch, name="patch embeddings"
        )
        self._places = places

    def forward(self, t: Tape, pixels: Tensor, images: Size) -> Tensor:
        """Shapes: (pictures * values) to (pictures * places, hidden)."""
        out: Tensor = self.projection(t, pixels, images * self._places)
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
    """The tower."""

    def __init__(self, v: Config) -> None:
        width = v.integer("hidden_size", default=768)
        heads = v.integer("num_attention_heads", default=12)
        v.divides("num_attention_heads", width, heads)
        side = v.integer("image_size", default=1024, high=65_536)
        patch = v.integer("patch_size", default=16, high=side)
        grid, window = side // patch, v.integer("window_size", default=14, low=0, high=65_536)
        layers = v.integer("num_hidden_layers", default=12, high=MAX_LAYERS)
        everywhere = v.entries.get("global_attn_indexes", (2, 5, 8, 11))
        self.patch_embed = SamPatches(v, width, patch, grid**2)
        self.pos_embed = Parameter((1, grid, grid, width)) if v.flag("use_abs_pos", True) else None
        self.layers = Stack(
            lambda windowed: SamLayer(v, width, heads, grid, window if windowed else 0),
            [at not in everywhere for at in range(layers)],
        )
        self.hidden = v.integer("output_channels", default=256)
        self.neck = SamNeck(width, self.hidden)
        self.values, self.tokens, self.grid = v.integer("num_channels", default=3) * side**2, grid**2, grid
        self.unread: list[Module] = []

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        """Shapes: (pictures * values) to (pictures * tokens, output channels)."""
        layers, name = self.layers.layers, "model.vision_tower.layers"
        hidden = walk_stack(
            t, name, layers, self._placed(t, pixels, call, images, several), replace(call, beside=several),
            checkpointing=call.checkpointing,
        )  # fmt: skip
        out: Tensor = self.neck(t, reordered(t, hidden), images * self.tokens)
        return out

    def _placed(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        hidden: Tensor = self.patch_embed(t, pixels, images)
        if call.input_gradients:
            t.require_grad(hidden, copied=True)  # the channels lie first in memory, in the gradient last
        if self.pos_embed is not None:
            positions = t.parameter(self.pos_embed)
            if several:
                positions = ops.broadcast(t, positions, hidden.numel, "position embeddings", summed=True)
            else:
                positions.numel = hidden.numel
            hidden = ops.add(t, hidden, positions, "patches in their places")
        return hidden

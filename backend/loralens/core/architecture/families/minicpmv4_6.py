"""MiniCPM-V 4.6: Qwen3.5's layers; large pictures in slices and as a whole; SigLIP's layers, among which windows of four patches merge.

Source: transformers 5.23, models/minicpmv4_6/{modeling,image_processing_pil}_minicpmv4_6.py (slices of 448 pixels, at most nine, its
defaults). Videos are not modelled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.families.encoder_towers import TowerLayer
from loralens.core.architecture.families.qwen_vision import SplitVisionAttention, joined
from loralens.core.architecture.media import Media, Pictures, missing_size
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import InvalidInput
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.packed import Pieces
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.tape import Tape

SLICE: Final = 448  # pixels
MOST_SLICES: Final = 9
WINDOW: Final = 4  # patches that become one, in the tower and again behind it
MODES: Final = ("16x", "4x")  # 4x: they do not merge in the tower


@dataclass(frozen=True, slots=True)
class Slices:
    """Patches of the pieces of one sample's pictures, the first piece first."""

    counts: tuple[int, ...]

    @property
    def patches(self) -> int:
        """Of one sample."""
        return sum(self.counts)

    def pieces(self) -> Pieces:
        """Every piece sees itself alone."""
        pairs = sum(count**2 for count in self.counts)
        return Pieces(ONE * self.counts[0], BATCH * len(self.counts), BATCH * pairs)

    def merged(self) -> Slices:
        """A quarter of the patches."""
        return Slices(tuple(count // WINDOW for count in self.counts))

    def windows(self) -> Pieces:
        """Every window sees itself alone."""
        count = self.patches // WINDOW
        return Pieces(ONE * WINDOW, BATCH * count, BATCH * (count * WINDOW**2))


class PackedPatches(Module):
    """A vector for each patch, and one for the nearest place of a grid."""

    def __init__(self, v: Config, hidden: int) -> None:
        self.patch = v.integer("patch_size", default=16, high=65_536)
        side = v.integer("image_size", default=224, high=65_536)
        channels = v.integer("num_channels", default=3)
        self.values = channels * self.patch**2
        self.patch_embedding = Convolution(channels, hidden, self.patch, self.patch, name="patch embeddings")
        self.position_embedding = Embedding((side // self.patch) ** 2, hidden)

    def forward(self, t: Tape, pixels: Tensor, call: Call, rows: Size) -> Tensor:
        """Shapes: (rows * values) to (rows, hidden)."""
        patches = t.local(self.patch_embedding(t, pixels, rows))
        if call.input_gradients:
            t.require_grad(patches, copied=True)  # the patches lie last in memory, the hidden values first
        numbers = t.local(t.new(rows, "int64", 1, "numbers of places"))
        positions = self.position_embedding(t, rows, "position embeddings", numbers)
        return ops.add(t, patches, positions, "patches in places")


class PackedLayer(TowerLayer):
    """SigLIP's, whose attention runs piece by piece."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str) -> None:
        super().__init__(hidden, intermediate, heads, 1, act, 0.0)
        self.self_attn = SplitVisionAttention(hidden, heads, "out_proj")


class WindowMerger(Module):
    """Attention in windows, whose patches then become one: two layers beside their mean."""

    def __init__(self, hidden: int, intermediate: int, heads: int) -> None:
        self.self_attn = SplitVisionAttention(hidden, heads, "out_proj")
        self.layer_norm1 = LayerNorm(hidden)
        self.pre_norm = LayerNorm(hidden * WINDOW)
        self.linear_1 = Linear(hidden * WINDOW, intermediate * WINDOW, True, name="window merger: first")
        self.linear_2 = Linear(intermediate * WINDOW, hidden, True, name="window merger: second")
        self._hidden = hidden

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to (rows / 4, hidden)."""
        rows, hidden = call.beside.patches, self._hidden
        normed = self.layer_norm1(t, x)
        order = t.local(t.new(BATCH * rows, "int64", 1, "patches by window"))
        by_window = ops.indexed(t, normed, order, x.numel, hidden, "normed patches by window")
        t.end(normed)
        seen = self.self_attn(t, by_window, call, call.beside.windows())
        t.end(by_window)
        own = ops.indexed(t, x, order, x.numel, hidden, "residual stream by window")
        summed = ops.add(t, own, seen, "residual stream after attention in windows")
        t.end(own, seen)
        mean = derivatives.mean_of(t, summed, "mean of a window", numel=BATCH * (rows // WINDOW * hidden), width=hidden)
        out = self.linear_1(t, self.pre_norm(t, summed.view(hidden * WINDOW)))
        out = self.linear_2(t, activation(t, out, "gelu_pytorch_tanh", "window merger: activated"))
        t.end(summed)
        return ops.add(t, out, mean, "windows as patches")


class PackedTower(Module):
    """The tower. `inserted`: the layer behind which windows merge; None: they do not."""

    def __init__(self, v: Config, inserted: int | None) -> None:
        hidden, heads = v.integer("hidden_size", default=768), v.integer("num_attention_heads", default=12)
        v.divides("num_attention_heads", hidden, heads)
        wide = v.integer("intermediate_size", default=3072)
        depth = v.integer("num_hidden_layers", default=12, high=MAX_LAYERS)
        act = known(v.text("hidden_act", "gelu_pytorch_tanh"), "config.vision_config.hidden_act")
        if inserted is not None and inserted >= depth:
            raise InvalidInput(
                f"config.insert_layer_id {inserted} is none of the tower's {depth} layers: its windows would never merge",
                field="config.insert_layer_id",
                hint=f"try insert_layer_id={depth // 2}",
            )
        self.embeddings = PackedPatches(v, hidden)
        self.encoder = Module()
        self.encoder.layers = Stack(lambda _: PackedLayer(hidden, wide, heads, act), [None] * depth)
        self.post_layernorm = LayerNorm(hidden)
        self.vit_merger = WindowMerger(hidden, wide, heads)
        self.hidden, self.inserted = hidden, inserted

    def forward(self, t: Tape, pixels: Tensor, call: Call, name: str) -> Tensor:
        """Shapes: (rows * values) to (rows, hidden), or a quarter of the rows."""
        rows, layers = BATCH * call.beside.patches, self.encoder.layers.layers
        hidden = t.local(self.embeddings(t, pixels, call, rows))
        start = 0
        if self.inserted is not None:
            start = self.inserted + 1
            hidden = t.local(walk_stack(t, name, layers[:start], hidden, call, checkpointing=call.checkpointing))
            hidden = t.local(self.vit_merger(t, hidden, call))
            merged = call.beside.merged()
            call = replace(call, beside=merged, length=BATCH * merged.patches)
        if start < len(layers):
            hidden = t.local(
                walk_stack(t, name, layers[start:], hidden, call, checkpointing=call.checkpointing, first=start)
            )
        out: Tensor = self.post_layernorm(t, hidden)
        return out


class DownsampleMLP(Module):
    """Neighbouring patches side by side, a norm, and two layers; picture by picture."""

    def __init__(self, inputs: int, hidden: int) -> None:
        merged = inputs * WINDOW
        self.pre_norm = LayerNorm(merged)
        self.linear_1 = Linear(merged, merged, True, name="projector: first")
        self.linear_2 = Linear(merged, hidden, True, name="projector: second")
        self._merged = merged

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows / 4, hidden)."""
        x = ops.copy(t, x, "tower's states, shuffled").view(self._merged)
        x = self.linear_1(t, self.pre_norm(t, x))
        return self.linear_2(t, activation(t, x, "gelu", "projector: activated"))


class MiniCPMVMedia(Media):
    """Tower and projector."""

    tower, projector = "vision_tower", "merger"
    own_positions = False

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        mode, v = outer.text("downsample_mode", MODES[0]), outer.nested("vision_config") or Config({})
        if mode not in MODES:
            raise InvalidInput(
                f"config.downsample_mode {mode!r} is none of {', '.join(MODES)}",
                field="config.downsample_mode",
                hint=f"try downsample_mode={MODES[0]}",
            )
        for config, name in ((v, "window_kernel_size"), (outer, "merge_kernel_size")):
            if config.pair(name, 2) != (2, 2):
                raise InvalidInput(
                    f"config.{name}: this model's layers are made for 2 x 2 patches alone",
                    field=f"config.{name}",
                    hint=f"try {name}=[2, 2]",
                )
        outer.integer("merger_times", default=1, high=1)
        inserted = outer.integer("insert_layer_id", default=6, low=0, high=MAX_LAYERS)
        self._vision = PackedTower(v, None if mode == "4x" else inserted)
        self._projector = Module()
        self._projector.mlp = Stack(lambda _: DownsampleMLP(self._vision.hidden, root.s.hidden), [None])
        self._inner = 1 if mode == "4x" else WINDOW  # patches in one, at the tower's end
        self.join([(self.tower, self._vision), (self.projector, self._projector)])

    def buffer_bytes(self) -> int:
        """None."""
        return 0

    def slices(self, recipe: Recipe) -> Slices:
        """Of one sample."""
        if recipe.image_size is None:
            raise missing_size()
        patch = self._vision.embeddings.patch
        merge = 2 if self._inner == 1 else 4
        found = sliced(*recipe.image_size, patch, patch * merge)
        return Slices(tuple(high * wide for high, wide in found) * recipe.images)

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """Patches of all pieces in one row."""
        if not recipe.images:
            return None
        rows = self.slices(recipe).patches
        return Pictures(rows * self._vision.embeddings.values, rows, rows // (self._inner * WINDOW))

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Tower, projector, exchange."""
        v = self._vision
        pixels = Tensor(None, BATCH * pictures.values, given_dtype(call.recipe), v.embeddings.values)
        pixels = ops.cast(t, pixels, v.embeddings.patch_embedding.weight.dtype, "pictures in the tower's dtype")
        own = replace(
            call.of_length(BATCH * pictures.rows), checkpointing=call.checkpointing, beside=self.slices(call.recipe)
        )
        states = v(t, pixels, own, f"{self.below}{self.tower}.encoder.layers")
        tokens = self._projector.mlp.layers[0](t, states)
        rows = joined(t, tokens, "pictures: tokens of all, joined")
        rows = ops.cast(t, rows, hidden.dtype, "pictures: tokens in the embeddings' dtype")
        mask = t.new(TOKENS, "bool", 1, "places of media")
        call.held += [states, tokens, rows, mask]
        return masked_scatter(t, hidden, mask, rows, "embeddings with pictures")

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """And the window merger, where it does not run."""
        unread = [*self._vision.vit_merger.all_parameters()] if self._vision.inserted is None else []
        return super().unreached(recipe) or unread

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """Fewer behind the layer where windows merge."""
        found = super().uses_per_token(name, recipe)
        inserted, place = self._vision.inserted, f"{self.below}{self.tower}."
        if inserted is None or not name.startswith(place):
            return found
        match name.removeprefix(place).split("."):
            case ["encoder", "layers", index, *_]:
                return found / WINDOW if int(index) > inserted else found
            case ["vit_merger", part, *_] if part != "self_attn":
                return found / WINDOW
        return found


def sliced(height: int, width: int, patch: int, factor: int) -> list[tuple[int, int]]:
    """Patches down and across: of the picture as a whole, then of each slice.

    Source: models/minicpmv4_6/image_processing_pil_minicpmv4_6.py (`get_sliced_grid`, `find_best_resize`, `get_refine_size`).
    """
    grid = _grid(height, width)
    whole = _fitted(height, width, factor, grow=grid is None)
    found = [(whole[0] // patch, whole[1] // patch)]
    if grid is None:
        return found
    down, across = grid
    one = _fitted(_multiple(height, down) / down, _multiple(width, across) / across, factor, grow=True)
    return found + [(one[0] // patch, one[1] // patch)] * (down * across)


def _multiple(length: float, divisor: int) -> int:
    return max(round(length / divisor) * divisor, divisor)


def _fitted(height: float, width: float, factor: int, *, grow: bool) -> tuple[int, int]:
    if height * width > SLICE**2 or grow:
        ratio = width / height
        height = int(SLICE / math.sqrt(ratio))
        width = int(height * ratio)
    return _multiple(height, factor), _multiple(width, factor)


def _grid(height: int, width: int) -> tuple[int, int] | None:
    """Slices down and across, whose shape is nearest to the picture's; None where it is small."""
    several = min(math.ceil(height * width / SLICE**2), MOST_SLICES)
    if several <= 1:
        return None
    shape, best, least = math.log(width / height), (1, 1), math.inf
    for count in (several - 1, several, several + 1):
        if count == 1 or count > MOST_SLICES:
            continue
        for down in range(1, count + 1):
            if count % down:
                continue
            error = abs(shape - math.log(count // down / down))
            if error < least or (error == least and down > best[0]):
                best, least = (down, count // down), error
    return best

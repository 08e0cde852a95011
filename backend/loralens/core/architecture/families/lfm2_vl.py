"""LFM2-VL: pictures as they are, large ones in tiles and as a whole; SigLIP 2 on patches padded to the most, four patches in a token.

Source: transformers 5.23, models/lfm2_vl/{modeling,image_processing}_lfm2_vl.py (64 to 256 tokens of a picture, tiles of 512 pixels, its
defaults) and models/siglip2/modeling_siglip2.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.families.encoder_towers import PoolingHead, TowerLayer
from loralens.core.architecture.families.internvl import canvas
from loralens.core.architecture.families.projected import exchanged
from loralens.core.architecture.families.qwen_vision import joined
from loralens.core.architecture.media import Media, Pictures, missing_size, refuse_packed
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import interpolated, padded
from loralens.core.tape.size import BATCH, Size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.tape import Tape

FEWEST_TOKENS: Final = 64
MOST_TOKENS: Final = 256
TILE: Final = 512  # pixels
FEWEST_TILES: Final = 2
MOST_TILES: Final = 10
TOLERANCE: Final = 2.0  # so many times the most pixels are still one picture


class HookedLinear(Linear):
    """A layer whose own result must need a gradient, behind which its adapter's is added (`enable_input_require_grads`)."""

    hooked = False

    def base(self, t: Tape, x: Tensor) -> Tensor:
        """The layer's own product."""
        out = super().base(t, x)
        if self.hooked:
            t.require_grad(out)
        return out


class NaflexPatches(Module):
    """A layer on the patches, and positions resampled for each picture."""

    def __init__(self, v: Config, hidden: int) -> None:
        self.patch = v.integer("patch_size", default=16, high=65_536)
        self.values = v.integer("num_channels", default=3) * self.patch**2
        self.patch_embedding = HookedLinear(self.values, hidden, True, name="patch embeddings")
        self.position_embedding = Embedding(v.integer("num_patches", default=256), hidden)

    def forward(self, t: Tape, pixels: Tensor, call: Call, rows: Size, there: Size) -> Tensor:
        """Shapes: (rows, values) to (rows, hidden); `there`: rows that are no padding."""
        pixels = ops.cast(t, pixels, self.patch_embedding.weight.dtype, "pictures in the weights' dtype")
        self.patch_embedding.hooked = call.input_gradients
        patches = self.patch_embedding(t, pixels)
        width = self.position_embedding.width
        sampled = interpolated(t, t.parameter(self.position_embedding.weight), there * width, "positions, sampled")
        positions = padded(t, sampled, rows * width, "positions, padded")
        t.end(sampled)
        return ops.add(t, patches, positions, "patches in their places")


class NaflexTower(Module):
    """SigLIP 2 on pictures of any shape."""

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=768), v.integer("num_attention_heads", default=12)
        v.divides("num_attention_heads", hidden, heads)
        layers = v.integer("num_hidden_layers", default=12, high=MAX_LAYERS)
        wide = v.integer("intermediate_size", default=3072)
        act = known(v.text("hidden_act", "gelu_pytorch_tanh"), "config.vision_config.hidden_act")
        dropout = v.number("attention_dropout", 0.0, 0, 1)
        self.embeddings = NaflexPatches(v, hidden)
        side = TILE // self.embeddings.patch
        self.places = max(4 * MOST_TOKENS, side**2)
        self.encoder = Module()
        self.encoder.layers = Stack(
            lambda _: TowerLayer(hidden, wide, heads, self.places, act, dropout), [None] * layers
        )
        self.post_layernorm = LayerNorm(hidden)
        if v.flag("vision_use_head", True):
            self.head = PoolingHead(hidden, wide)
        self.hidden, self.values = hidden, self.embeddings.values

    def forward(self, t: Tape, pixels: Tensor, call: Call, count: Size, there: Size, name: str) -> Tensor:
        """Shapes: (pictures * places, values) to (pictures * places, hidden)."""
        rows = count * self.places
        hidden = t.local(self.embeddings(t, pixels, call, rows, there))
        if there != rows:
            kind = "bool" if call.attention == "sdpa" else hidden.dtype
            call.masks["pictures"] = t.local(t.new(rows * self.places, kind, self.places, "attention mask"))
        found = t.local(walk_stack(t, name, self.encoder.layers.layers, hidden, call, checkpointing=call.checkpointing))
        out: Tensor = self.post_layernorm(t, found)
        return out


class Lfm2Projector(Module):
    """Neighbouring patches side by side, a norm where the config has one, and two layers."""

    def __init__(self, outer: Config, inputs: int, hidden: int) -> None:
        bias, wide = outer.flag("projector_bias", True), outer.integer("projector_hidden_size", default=2560)
        if outer.flag("projector_use_layernorm", True):
            self.layer_norm = LayerNorm(inputs)
        self.linear_1 = Linear(inputs, wide, bias, name="projector: first")
        self.linear_2 = Linear(wide, hidden, bias, name="projector: second")
        self._inputs = inputs
        self._act = known(outer.text("projector_hidden_act", "gelu"), "config.projector_hidden_act")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden of the tower) to (tokens, hidden)."""
        x = ops.copy(t, x, "tower's states, shuffled").view(self._inputs)
        if "layer_norm" in vars(self):
            x = self.layer_norm(t, x)
        x = self.linear_1(t, x)
        x = activation(t, x, self._act, "projector: activated")
        x = self.linear_2(t, x)
        return x


class Lfm2VLMedia(Media):
    """Tower and projector."""

    tower, projector = "vision_tower", "multi_modal_projector"

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        self._vision = NaflexTower(outer.nested("vision_config") or Config({}))
        self._shuffle = outer.integer("downsample_factor", default=2, high=1_024)
        self._projector = Lfm2Projector(outer, self._vision.hidden * self._shuffle**2, root.s.hidden)
        self.join([(self.tower, self._vision), (self.projector, self._projector)])

    def seen(self, recipe: Recipe) -> list[int]:
        """Patches of each tile of a picture, and of the whole; or of the picture alone."""
        if recipe.image_size is None:
            raise missing_size()
        patch = self._vision.embeddings.patch
        high, wide = resized(*recipe.image_size, patch, self._shuffle)
        whole = high * wide // patch**2
        if not large(*recipe.image_size, patch, self._shuffle):
            return [whole]
        across, down = canvas(recipe.image_size, (TILE, TILE), MOST_TILES, FEWEST_TILES)
        return [(TILE // patch) ** 2] * (across * down) + [whole]

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """Padded to the most patches."""
        if not recipe.images:
            return None
        seen, v = self.seen(recipe), self._vision
        rows = recipe.images * len(seen) * v.places
        return Pictures(rows * v.values, rows, recipe.images * sum(seen) // self._shuffle**2)

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Which patches are there, as 32-bit numbers."""
        rows = recipe.images * len(self.seen(recipe)) * self._vision.places
        return [("which patches are there", BATCH * (rows * 4))]

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Tower, padding cut off, projector, exchange.

        Raises:
            InvalidInput: the layer on the patches is packed.
        """
        v = self._vision
        refuse_packed(v.embeddings.patch_embedding.weight, f"{self.below}{self.tower}")
        pixels = Tensor(None, BATCH * pictures.values, given_dtype(call.recipe), v.values)  # booked with the batch
        there = BATCH * (pictures.tokens * self._shuffle**2)
        own = replace(call.of_length(BATCH * pictures.rows), checkpointing=call.checkpointing)
        count = BATCH * (pictures.rows // v.places)
        states = v(t, pixels, own, count, there, f"{self.below}{self.tower}.encoder.layers")
        kept = ops.cut(t, states, "tower's states without padding", numel=there * v.hidden)
        tokens = self._projector(t, kept)
        call.held += [states, tokens]
        return exchanged(self, t, hidden, call, joined(t, tokens, "pictures: tokens of all, joined"))

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """And a pooled vector, which no language model reads."""
        head = [*self._vision.head.all_parameters()] if "head" in vars(self._vision) else []
        return super().unreached(recipe) or head


def resized(height: int, width: int, patch: int, merge: int) -> tuple[int, int]:
    """Pixels down and across of a picture as a whole.

    Source: models/lfm2_vl/image_processing_lfm2_vl.py, `smart_resize`.
    """
    factor, token = patch * merge, (patch * merge) ** 2
    high, wide = (max(factor, round(side / factor) * factor) for side in (height, width))
    if high * wide > MOST_TOKENS * token:
        shrunk = math.sqrt(height * width / (MOST_TOKENS * token))
        return tuple(max(factor, math.floor(side / shrunk / factor) * factor) for side in (height, width))  # type: ignore[return-value]
    if high * wide < FEWEST_TOKENS * token:
        grown = math.sqrt(FEWEST_TOKENS * token / (height * width))
        return tuple(math.ceil(side * grown / factor) * factor for side in (height, width))  # type: ignore[return-value]
    return high, wide


def large(height: int, width: int, patch: int, merge: int) -> bool:
    """Is a picture cut into tiles?

    Source: models/lfm2_vl/image_processing_lfm2_vl.py, `_is_image_too_large`.
    """
    factor = patch * merge
    high, wide = (max(patch, round(side / factor) * factor) for side in (height, width))
    return high * wide > MOST_TOKENS * factor**2 * TOLERANCE

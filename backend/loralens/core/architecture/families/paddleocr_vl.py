"""PaddleOCR-VL: ERNIE's layers turned by three kinds of position, SigLIP's on patches of any picture, four patches in a token.

Source: transformers 5.23, models/paddleocr_vl/{modeling,image_processing_pil}_paddleocr_vl.py (147,456 to 2,359,296 pixels, its
default limits).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import GatedMLP, LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.families.encoder_towers import TowerLayer
from loralens.core.architecture.families.qwen_positions import section_tables
from loralens.core.architecture.families.qwen_vision import (
    Grid,
    QwenMedia,
    SplitVisionAttention,
    VisionTables,
    joined,
    resampled,
    resized,
    split_up,
    taps_of,
)
from loralens.core.architecture.media import Media
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.shape import Shape
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

FEWEST_PIXELS: Final = 384**2
MOST_PIXELS: Final = 1536**2


class PaddleText(CausalDecoder):
    """The language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, kv_heads=2, head_dim=128)
        bias = config.flag("use_bias", False)

        def layer(_: object) -> DecoderLayer:
            attention = SelfAttention(s, bias=bias, output_bias=bias)
            return DecoderLayer(s, attention, GatedMLP(s.hidden, s.intermediate, bias, s.act))

        self.assemble(s, layer, s.windows)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """By three kinds of position."""
        call.shared["rotary"] = section_tables(t, hidden, call, self.s.rotated)


class PaddleLayer(TowerLayer):
    """SigLIP's, turned by rows and columns."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str) -> None:
        super().__init__(hidden, intermediate, heads, 1, act, 0.0)
        self.self_attn = SplitVisionAttention(hidden, heads, "out_proj")


class PaddlePatches(Module):
    """A vector for each patch, and its position."""

    frames = 1

    def __init__(self, v: Config, hidden: int) -> None:
        self.patch = v.integer("patch_size", default=14, high=65_536)
        channels = v.integer("num_channels", default=3)
        self.places = (v.integer("image_size", default=384, high=65_536) // self.patch) ** 2
        self.values = channels * self.patch**2
        self.patch_embedding = Convolution(channels, hidden, self.patch, self.patch, name="patch embeddings")
        self.position_embedding = Embedding(self.places, hidden)

    @property
    def proj(self) -> Convolution:
        """What makes a vector of a patch."""
        return self.patch_embedding

    def forward(self, t: Tape, pixels: Tensor, rows: Size) -> Tensor:
        """Shapes: (rows, values of a patch) to (rows, hidden)."""
        hidden = self.patch_embedding(t, pixels, rows)
        return resampled(t, hidden, self.position_embedding, rows, *taps_of(t, rows))


class PaddleTower(Module):
    """The tower."""

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=1152), v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        wide = v.integer("intermediate_size", default=4304)
        depth = v.integer("num_hidden_layers", default=27, high=MAX_LAYERS)
        act = known(v.text("hidden_act", "gelu_pytorch_tanh"), "config.vision_config.hidden_act")
        self.merge = v.integer("spatial_merge_size", default=2, high=1_024)
        self.vision_model = Module()
        self.vision_model.embeddings = PaddlePatches(v, hidden)
        self.vision_model.encoder = Module()
        self.vision_model.encoder.layers = Stack(lambda _: PaddleLayer(hidden, wide, heads, act), [None] * depth)
        self.vision_model.post_layernorm = LayerNorm(hidden)
        self.head, self.hidden = hidden // heads, hidden

    @property
    def patch_embed(self) -> PaddlePatches:
        """The patches."""
        found: PaddlePatches = self.vision_model.embeddings
        return found

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to (rows, hidden)."""
        inner = self.vision_model
        hidden = t.local(inner.embeddings(t, pixels, grid.rows))
        call.beside = grid
        found = t.local(self._encoded(t, hidden, call, grid, name))
        return [inner.post_layernorm(t, found)]

    def _encoded(self, t: Tape, hidden: Tensor, call: Call, grid: Grid, name: str) -> Tensor:
        t.local(t.new(grid.rows * 2, "int64", 2, "vision positions"))
        call.shared["rotary"] = VisionTables(self.head).made(t, grid.rows)
        layers = self.vision_model.encoder.layers.layers
        return walk_stack(t, name, layers, hidden, call, checkpointing=call.checkpointing)


class PaddleProjector(Module):
    """A norm, neighbouring patches side by side, and two layers."""

    def __init__(self, inputs: int, merged: int, hidden: int) -> None:
        self.pre_norm = LayerNorm(inputs)
        self.linear_1 = Linear(merged, merged, True, name="projector: first")
        self.linear_2 = Linear(merged, hidden, True, name="projector: second")
        self._merged = merged

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (tokens, hidden); picture by picture."""
        x = self.pre_norm(t, split_up(t, x))
        x = ops.copy(t, x, "tower's states, shuffled").view(self._merged)
        x = activation(t, self.linear_1(t, x), "gelu", "projector: activated")
        return joined(t, self.linear_2(t, x), "pictures: tokens of all, joined")


class PaddleMedia(QwenMedia):
    """Tower and projector."""

    projector = "projector"
    blocks = "vision_model.encoder.layers"
    words = Media.words
    masks = 1

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return PaddleTower(v)

    def behind(self, outer: Config) -> list[tuple[str, Module]]:
        """The projector."""
        hidden = self._visual.hidden
        self._projector = PaddleProjector(hidden, hidden * self._merge**2, self._width)
        return [(self.projector, self._projector)]

    def buffer_bytes(self) -> int:
        """And the numbers of places."""
        places: int = self._visual.patch_embed.places
        return super().buffer_bytes() + places * 8

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """A side shorter than a token's is made as long before anything else."""
        factor = self._visual.patch_embed.patch * self._merge
        if height < factor:
            height, width = factor, round(width * factor / height)
        if width < factor:
            height, width = round(height * factor / width), factor
        return resized(height, width, factor, FEWEST_PIXELS, MOST_PIXELS)

    def projected(self, t: Tape, found: list[Tensor]) -> list[Tensor]:
        """Projected."""
        (states,) = found
        return [states, self._projector(t, states)]

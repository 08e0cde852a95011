"""GLM-4.1V, 4.5V and 4.6V: GLM-4's layers or GLM-4.5's, turned by three kinds of position, and a tower whose positions are sampled from a table.

Source: transformers 5.23, models/{glm4v,glm46v,glm4v_moe}/modeling_*.py and models/glm4v/image_processing_pil_glm4v.py (12,544 to 11,760,000
pixels, its default limits, of a picture taken twice).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import GatedMLP, LayerNorm, RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.families.glm import Glm4Layer
from loralens.core.architecture.families.glm4_moe import Glm4Moe
from loralens.core.architecture.families.qwen_positions import section_tables
from loralens.core.architecture.families.qwen_vision import (
    Grid,
    PatchEmbed,
    QwenMedia,
    VisionAttention,
    VisionTables,
    resized,
)
from loralens.core.architecture.media import Media
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import Shape
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.selecting import grid_sample
from loralens.core.tape.size import Size
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call


class Glm4vAttention(SelfAttention):
    """Rotary by pairs on a part of each head; the tables have every value twice already."""

    heads_first = True

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary on a part of query and key."""
        return rotate_part(t, q, k, call.shared["rotary"], self.s.rotated, pass_empty=True)


class Glm4vText(CausalDecoder):
    """The language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config.over({"head_dim": None}), kv_heads=2)
        self.assemble(s, lambda _: Glm4Layer(s, Glm4vAttention(s, bias=True)), s.windows)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """By three kinds of position."""
        call.shared["rotary"] = section_tables(t, hidden, call, self.s.rotated)


class Glm4vBlock(Module):
    """Pre-norm attention and gated MLP, which is as wide as the language model."""

    def __init__(self, v: Config, hidden: int, heads: int, act: str) -> None:
        self.norm1, self.norm2 = RMSNorm(hidden), RMSNorm(hidden)
        bias = v.flag("attention_bias", False)
        self.attn = VisionAttention(hidden, heads, bias=bias, output_bias=False)
        self.mlp = GatedMLP(hidden, v.integer("out_hidden_size", default=4096), act=act)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        pieces = call.beside.pieces()
        hidden = ops.add(
            t, hidden, self.attn(t, self.norm1(t, hidden), call, pieces), "residual stream after attention"
        )
        return ops.add(t, hidden, self.mlp(t, self.norm2(t, hidden)), "residual stream after the layer")


class SampledPositions(Module):
    """A table of vectors for places, from which every patch's is interpolated in float32."""

    multiplies = False  # they are added

    def __init__(self, side: int, patch: int, hidden: int) -> None:
        self.position_embedding = Embedding((side // patch) ** 2, hidden)

    def forward(self, t: Tape, hidden: Tensor, rows: Size) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        weight = t.parameter(self.position_embedding.weight)
        width = self.position_embedding.width
        table = t.local(ops.cast(t, weight, "float32", "positions: table in float32"))
        grid = t.local(t.new(rows * 2, "float32", 2, "positions: places in the table"))
        sampled = t.local(grid_sample(t, table, grid, rows * width, "positions, sampled"))
        positions = t.local(ops.cast(t, sampled, weight.dtype, "positions, cast back"))
        return ops.add(t, hidden, positions, "patches in their places")


class Glm4vMerger(Module):
    """A layer, a norm, and a gated MLP."""

    def __init__(self, out: int, wide: int, act: str) -> None:
        self.proj = Linear(out, out, name="merger: first")
        self.post_projection_norm = LayerNorm(out)
        self.gate_proj = Linear(out, wide, name="mlp gate")
        self.up_proj = Linear(out, wide, name="mlp up")
        self.down_proj = Linear(wide, out, name="mlp down")
        self._act = act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (tokens, out) to the same."""
        x = self.proj(t, x)
        x = activation(t, self.post_projection_norm(t, x), "gelu", "merger: activated")
        gate = activation(t, self.gate_proj(t, x), self._act, "mlp: activated gate")
        return self.down_proj(t, ops.mul(t, gate, self.up_proj(t, x), "mlp: product"))


class Glm4vTower(Module):
    """The tower with its merger."""

    sampled = True  # positions from a table, behind a norm

    def __init__(self, v: Config) -> None:
        hidden, heads = (
            v.integer("hidden_size", default=1536),
            v.integer("num_heads", "num_attention_heads", default=12),
        )
        v.divides("num_heads", hidden, heads)
        side, patch = (
            v.integer("image_size", default=336, high=65_536),
            v.integer("patch_size", default=14, high=65_536),
        )
        act = known(v.text("hidden_act", "silu"), "config.vision_config.hidden_act")
        depth = v.integer("depth", "num_hidden_layers", default=24, high=MAX_LAYERS)
        out = v.integer("out_hidden_size", default=4096)
        self.merge = v.integer("spatial_merge_size", default=2, high=1_024)
        if self.sampled:
            self.embeddings = SampledPositions(side, patch, hidden)
        self.patch_embed = PatchEmbed(v, hidden, bias=True)
        self.blocks = Stack(lambda _: self.block(v, hidden, heads, act), [None] * depth)
        self.merger = Glm4vMerger(out, self.merged(v, out), act)
        if self.sampled:
            self.post_conv_layernorm = RMSNorm(hidden)
        self.downsample = Convolution(hidden, out, self.merge, self.merge, name="patches, merged")
        self.post_layernorm = RMSNorm(hidden)
        self.head = hidden // heads

    def block(self, v: Config, hidden: int, heads: int, act: str) -> Module:
        """A layer."""
        return Glm4vBlock(v, hidden, heads, act)

    def merged(self, v: Config, out: int) -> int:
        """The width inside the merger."""
        return v.integer("intermediate_size", default=13696)

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to (tokens, out), twice."""
        t.local(t.new(grid.rows * 2, "int64", 2, "vision positions"))
        hidden = self.patch_embed(t, pixels, grid.rows)
        if self.sampled:
            hidden = self.post_conv_layernorm(t, hidden)
        call.shared["rotary"] = VisionTables(self.head).made(t, grid.rows)
        if self.sampled:
            hidden = self.embeddings(t, hidden, grid.rows)
        call.beside = grid
        hidden = walk_stack(t, name, self.blocks.layers, hidden, call, checkpointing=call.checkpointing)
        hidden = self.post_layernorm(t, hidden)
        hidden = self.downsample(t, hidden, grid.rows // self.merge**2)
        return [hidden, self.merger(t, hidden)]


class Glm4vMedia(QwenMedia):
    """GLM's tower for pictures."""

    words = Media.words
    limits = (112 * 112, 28 * 28 * 15_000)

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        if root.expert_targets:  # PEFT 0.21 turns all-linear into names there, and `proj` is the convolution's name too
            root.refuses_all_linear = "all-linear is not modelled in this family: the names that PEFT shortens the list to also mean the tower's convolution"

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return Glm4vTower(v)

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Of a picture, which counts as two frames."""
        return resized(height, width, self._visual.patch_embed.patch * self._merge, *self.limits, frames=2)


class Glm4vMoeText(Glm4Moe):
    """GLM-4.5V's language model: GLM-4.5's layers without norms on query and key."""

    def __init__(self, config: Config) -> None:
        over = {"head_dim": None, "use_qk_norm": False}
        super().__init__(config.over(over, {"attention_bias": True}))

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """By three kinds of position, which layers are handed too."""
        call.shared["rotary"] = section_tables(t, hidden, call, self.s.rotated)
        call.shared["position ids"] = call.held[-1]

"""Pixtral as a tower, in LLaVA's and in Mistral Small 3's frame: patches of all pictures in one row, with a mask between them.

Source: transformers 5.23, models/{pixtral,llava,mistral3}/modeling_*.py and models/pixtral/image_processing_pixtral.py; the
longest edge of the published preprocessor_config.json, which is the config's image_size (1,024 and 1,540 pixels).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import Attention, GatedMLP, RMSNorm, rotate
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.families.projected import LlavaProjector, Projected
from loralens.core.architecture.families.qwen_vision import VisionTables, joined, split_up
from loralens.core.architecture.media import Pictures, missing_size
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, ONE, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape


ALIGNMENT = 16


class PixtralAttention(Module):
    """Four projections and rotary embedding by row and column; every patch meets every patch of the batch, behind a mask."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        for name, label in (("k", "key"), ("v", "value"), ("q", "query")):
            setattr(self, f"{name}_proj", Linear(hidden, hidden, name=f"attention {label}"))
        self.o_proj = Linear(hidden, hidden, name="attention output projection")
        self._heads, self._dropout = heads, dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        hidden = self.o_proj.in_features
        width = hidden // self._heads
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        tables = call.shared["rotary"]
        q, k = rotate(t, q, tables, "attention query"), rotate(t, k, tables, "attention key")
        kernel = Attention(
            self._heads, self._heads, width, width, call.attention, self._dropout, causal=False, keys=call.length
        )
        out: Tensor = self.o_proj(t, kernel(t, q, k, v, aligned(t, call, q)).view(hidden))
        return out


def aligned(t: Tape, call: Call, q: Tensor) -> Tensor | None:
    """The mask as the efficient kernel takes it: rows of a multiple of 16 values, for which it is copied where they are not.

    Source: aten/src/ATen/native/transformers/attention.cpp (`pad_bias`), torch 2.13.
    """
    mask, rows = call.masks["pictures"], call.length[0]
    if mask is None or call.attention != "sdpa" or not rows % ALIGNMENT:
        return mask
    return t.new(ONE * (rows * (rows + -rows % ALIGNMENT)), t.autocast or q.dtype, 1, "attention mask, padded")


class PixtralLayer(Module):
    """Pre-norm attention and gated MLP."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str, dropout: float) -> None:
        self.attention_norm = RMSNorm(hidden)
        self.feed_forward = GatedMLP(hidden, intermediate, act=act)
        self.attention = PixtralAttention(hidden, heads, dropout)
        self.ffn_norm = RMSNorm(hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.attention_norm(t, hidden)
        hidden = self.attention(t, hidden, call)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.ffn_norm(t, hidden)
        hidden = self.feed_forward(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class PixtralTower(Module):
    """The tower."""

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=1024), v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        layers = v.integer("num_hidden_layers", default=24, high=MAX_LAYERS)
        wide = v.integer("intermediate_size", default=4096)
        self.patch = v.integer("patch_size", default=16, high=65_536)
        self.longest = v.integer("image_size", default=1024, high=65_536)
        act = known(v.text("hidden_act", "gelu"), "config.vision_config.hidden_act")
        dropout = v.number("attention_dropout", 0.0, 0, 1)
        self.channels = v.integer("num_channels", default=3)
        self.patch_conv = Convolution(
            self.channels, hidden, self.patch, self.patch, name="patch embeddings", bias=False
        )
        self.ln_pre = RMSNorm(hidden)
        self.transformer = Module()
        self.transformer.layers = Stack(lambda _: PixtralLayer(hidden, wide, heads, act, dropout), [None] * layers)
        self.hidden, self.head = hidden, hidden // heads
        self.unread: list[Module] = []

    def forward(self, t: Tape, pixels: Tensor, call: Call) -> Tensor:
        """Shapes: (pictures * values) to (rows, hidden)."""
        rows = call.length
        pixels = ops.cast(t, pixels, self.patch_conv.weight.dtype, "pictures in the weights' dtype")
        patches = self.patch_conv(t, pixels, rows)
        if call.input_gradients:
            t.require_grad(patches, copied=True)
        t.local(patches)
        flat = split_up(t, patches)
        hidden = ops.copy(t, flat, "patches of all pictures")
        hidden = t.local(self.ln_pre(t, hidden))
        t.local(t.new(rows * 2, "int64", 2, "vision positions"))
        call.shared["rotary"] = self._tables(t, rows, hidden.dtype)
        call.masks["pictures"] = None
        if call.attention != "flash":
            call.masks["pictures"] = t.new(rows.times(rows), hidden.dtype, 1, "attention mask")
        layers, name = self.transformer.layers.layers, "model.vision_tower.transformer.layers"
        return walk_stack(t, name, layers, hidden, call, checkpointing=call.checkpointing)

    def _tables(self, t: Tape, rows: Size, dtype: str) -> tuple[Tensor, Tensor]:
        cos, sin = VisionTables(self.head).made(t, rows)
        return ops.cast(t, cos, dtype, "rotary: cos"), ops.cast(t, sin, dtype, "rotary: sin")


class PixtralMedia(Projected):
    """Pixtral in LLaVA's frame: every patch is a token."""

    usual = "pixtral"
    merge = 1

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """Pixtral, whose last layer is read."""
        v = outer.nested("vision_config")
        own = v is not None and v.text("model_type", cls.usual) == "pixtral"
        return own and outer.entries.get("vision_feature_layer", -1) == -1

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower."""
        return PixtralTower(v)

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """Two layers."""
        act = known(outer.text("projector_hidden_act", "gelu"), "config.projector_hidden_act")
        return LlavaProjector(inputs, hidden, act, outer.flag("multimodal_projector_bias", True))

    def tokens(self) -> int:
        """A patch each."""
        return 1

    def buffer_bytes(self) -> int:
        """Inverse frequencies of the rotary tables and their copy."""
        half: int = self._vision.head // 2
        return half * 4 * 2

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """No side longer than the tower's longest, both a whole number of tokens."""
        if not recipe.images:
            return None
        if recipe.image_size is None:
            raise missing_size("768x1024")
        high, wide = self.sides(*recipe.image_size)
        patches = (high // self._vision.patch) * (wide // self._vision.patch)
        values = self._vision.channels * high * wide
        return Pictures(*(recipe.images * count for count in (values, patches, patches // self.merge**2)))

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """After the processor."""
        ratio = max(height, width) / self._vision.longest
        if ratio > 1:
            height, width = math.floor(height / ratio), math.floor(width / ratio)
        step = self._vision.patch * self.merge
        return -(-height // step) * step, -(-width // step) * step

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """One row for the whole batch, whose mask grows with its square: the plan holds for this batch alone."""
        batch = call.recipe.micro_batch_size
        for threshold in (batch - 1, batch):
            call.validity.exceeds("micro_batch_size", threshold)
        rows = ONE * (batch * pictures.rows)
        pixels = Tensor(
            None, BATCH * pictures.values, given_dtype(call.recipe), pictures.values
        )  # booked with the batch
        own = replace(call.of_length(rows), checkpointing=call.checkpointing)
        states = self._vision(t, pixels, own)
        call.held.append(states)
        tokens = split_up(t, self.projected(t, states, call))
        call.held.append(tokens)
        return self.exchanged(t, hidden, call, joined(t, tokens, "pictures: tokens of all, joined"))

    def projected(self, t: Tape, states: Tensor, call: Call) -> Tensor:
        """The projector's result."""
        out: Tensor = self._projector(t, states)
        return out


class Mistral3Projector(Module):
    """A norm, neighbouring patches merged, two layers."""

    def __init__(self, inputs: int, hidden: int, act: str, bias: bool, merge: int) -> None:
        self.norm = RMSNorm(inputs)
        self.patch_merger = Module()
        self.patch_merger.merging_layer = Linear(inputs * merge**2, inputs, name="merger")
        self.linear_1 = Linear(inputs, hidden, bias, name="projector: first")
        self.linear_2 = Linear(hidden, hidden, bias, name="projector: second")
        self._act = act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (tokens, hidden)."""
        x = t.local(self.norm(t, x))
        merged = self.patch_merger.merging_layer
        pieces = ops.copy(t, split_up(t, x), "patches, neighbours side by side")
        x = ops.copy(t, pieces.view(merged.in_features), "patches of all pictures, merged")
        t.end(pieces)
        x = t.local(merged(t, x))
        x = self.linear_1(t, x)
        x = activation(t, x, self._act, "projector: activated")
        x = self.linear_2(t, x)
        return x


class Mistral3Media(PixtralMedia):
    """Mistral Small 3: four patches become one token."""

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """With the merger."""
        self.merge = outer.integer("spatial_merge_size", default=2, high=1_024)
        act = known(outer.text("projector_hidden_act", "gelu"), "config.projector_hidden_act")
        return Mistral3Projector(inputs, hidden, act, outer.flag("multimodal_projector_bias", False), self.merge)

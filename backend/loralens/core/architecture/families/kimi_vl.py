"""Kimi-VL: MoonViT's tower before DeepSeek-V3's causal model; what it sees of several pictures is told apart by a mask.

Source: moonshotai/Kimi-VL-A3B-Instruct, modeling_kimi_vl.py, configuration_kimi_vl.py and image_processing_kimi_vl.py (as
ByteDance-Seed/VeOmni and vLLM have them); the published preprocessor_config.json (at most 4,096 patches of a picture).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import Attention, LayerNorm, PlainMLP
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.families.qwen_vision import Grid, QwenMedia
from loralens.core.architecture.media import Media
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.scatter import put
from loralens.core.tape.selecting import interpolated
from loralens.core.tape.size import ONE, TOKENS

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.architecture.media import Pictures
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

MOST_PATCHES: Final = 4_096
SIDE: Final = 512  # patches; of the table of rotations


class MoonPatches(Module):
    """A convolution over each patch, and its place on a learned grid that is resampled to the picture's."""

    def __init__(self, v: Config, hidden: int) -> None:
        self.patch = v.integer("patch_size", default=14, high=65_536)
        self.values = 3 * self.patch**2
        self.proj = Convolution(3, hidden, self.patch, self.patch, name="patch embeddings")
        self.own = tuple(v.integer(f"init_pos_emb_{name}", default=64, high=65_536) for name in ("height", "width"))
        self.pos_emb = Module()
        self.pos_emb.multiplies = False  # it is added
        self.pos_emb.weight = Parameter((*self.own, hidden))
        self._hidden = hidden

    def forward(self, t: Tape, pixels: Tensor, grid: Grid) -> Tensor:
        """Shapes: (rows, values of a patch) to (rows, hidden)."""
        x = self.proj(t, pixels, grid.rows)
        table = t.parameter(self.pos_emb.weight).view(self._hidden)
        if (grid.height, grid.width) == self.own:
            found = ops.broadcast(t, table, x.numel, "position embeddings", summed=True)
        else:
            found = interpolated(t, self._wide(t, table), x.numel, "position embeddings")
        joined = ops.copy(t, found, "position embeddings of all pictures")
        return ops.add(t, x, joined, "patches in their places")

    def _wide(self, t: Tape, table: Tensor) -> Tensor:
        """Autocast resamples in float32."""
        return table if t.autocast is None else ops.cast(t, table, "float32", "position embeddings in float32")


class MoonLayer(Module):
    """Pre-norm attention with one matrix for query, key and value, and an MLP."""

    def __init__(self, hidden: int, wide: int, heads: int) -> None:
        self.norm0, self.norm1 = LayerNorm(hidden), LayerNorm(hidden)
        self.mlp = PlainMLP(hidden, wide, ("fc0", "fc1"), "gelu_pytorch_tanh")
        self.wqkv = Linear(hidden, 3 * hidden, True, name="attention query, key and value")
        self.wo = Linear(hidden, hidden, True, name="attention output projection")
        self._hidden, self._heads = hidden, heads

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.norm0(t, hidden)
        hidden = ops.add(t, residual, self.attention(t, hidden, call), "residual stream after attention")
        residual = hidden
        hidden = self.mlp(t, self.norm1(t, hidden))
        return ops.add(t, residual, hidden, "residual stream after the layer")

    def attention(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        width = self._hidden // self._heads
        q, k, v = unbound(t, self.wqkv(t, x), self._hidden)
        q, k = turned(t, q, k, call.shared["rotations"], width)
        out = self.kernel(t, q, k, v, call, width)
        return self.wo(t, out)

    def kernel(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, call: Call, width: int) -> Tensor:
        """One kernel call for the pictures of the whole batch, which a mask keeps apart where it is not told their ends."""
        grid: Grid = call.beside
        if call.attention == "flash":
            keys = ONE * (grid.height * grid.width)
            kernel = Attention(self._heads, self._heads, width, width, "flash", causal=False, keys=keys)
            return kernel(t, q.view(width), k.view(width), v.view(width)).view(self._hidden)
        keys = ONE * (t.validity.pinned("micro_batch_size") * grid.patches)
        mask = t.new(grid.rows.times(keys), "bool", 1, "which patches see each other")
        if call.attention == "eager":
            return self._eager(t, q, k, v, mask, grid.rows.times(keys) * self._heads)
        kernel = Attention(self._heads, self._heads, width, width, "sdpa", causal=False, in_a_row=True, keys=keys)
        return kernel(t, q.view(width), k.view(width), v.view(width), mask).view(self._hidden)

    def _eager(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scores: Size) -> Tensor:
        width, flops = self._hidden // self._heads, scores * (2 * self._hidden // self._heads)
        weights = ops.matmul(t, q, k, scores, 1, "attention: scores", flops=flops)
        weights = ops.scale(t, weights, "attention: scaled scores")
        weights = ops.add_in_place(t, weights, mask)
        weights = ops.softmax(t, weights, "float32", "attention: softmax in float32")
        weights = ops.cast(t, weights, q.dtype, "attention: probabilities")
        out = ops.matmul(t, weights, v, q.numel, width, "attention: output by head", flops=flops)
        return ops.copy(t, out, "attention: output", width=self._hidden)


def unbound(t: Tape, x: Tensor, width: int) -> list[Tensor]:
    """`view(rows, 3, …).unbind(1)`: views; backward stacks three gradients."""
    numel, dtype, whole = x.numel, x.dtype, x.width
    outs = [Tensor(x.storage, numel // 3, dtype, width) for _ in range(3)]
    label = "attention query, key and value"
    stacked = f"gradient: {label}, stacked"
    t.record(label, outs, [x], [], lambda *g: t.new(numel, dtype, whole, stacked, "temporaries"))
    return outs


def turned(t: Tape, q: Tensor, k: Tensor, rotations: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Neighbouring numbers as a complex one, times a rotation: as many bytes as two in float32. Shapes: (rows, hidden) to the same."""
    whole, dtype = q.width, q.dtype
    wide_q = ops.cast(t, q.view(width), "float32", "attention query in float32")
    wide_k = ops.cast(t, k.view(width), "float32", "attention key in float32")
    out_q = ops.mul(t, wide_q, rotations, "attention query, turned")
    out_k = ops.mul(t, wide_k, rotations, "attention key, turned")
    narrow_q = ops.cast(t, out_q, dtype, "attention query after rotary, cast back")
    narrow_k = ops.cast(t, out_k, dtype, "attention key after rotary, cast back")
    return narrow_q.view(whole), narrow_k.view(whole)


class MoonTower(Module):
    """The tower. Checkpointing does not reach its layers; its table of rotations is made once and stays."""

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=1152), v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        wide = v.integer("intermediate_size", default=4304)
        depth = v.integer("num_hidden_layers", default=27, high=MAX_LAYERS)
        self.merge, across = v.pair("merge_kernel_size", 2)
        if self.merge != across:
            raise UnsupportedArchitecture(
                "a token that is not as high as wide is not modelled", field="config.vision_config.merge_kernel_size"
            )
        self.patch_embed = MoonPatches(v, hidden)
        self.encoder = Module()
        self.encoder.blocks = Stack(lambda _: MoonLayer(hidden, wide, heads), [None] * depth)
        self.encoder.final_layernorm = LayerNorm(hidden)
        self.head, self.hidden = hidden // heads, hidden

    def forward(self, t: Tape, pixels: Tensor, call: Call, grid: Grid, name: str) -> list[Tensor]:
        """Shapes: pixels (rows, values of a patch) to the states of a token's patches, (rows, hidden)."""
        hidden = self.patch_embed(t, pixels, grid)
        call.beside = grid
        call.shared["rotations"] = self.rotations(t, grid.rows)
        hidden = walk_stack(t, name, self.encoder.blocks.layers, hidden, call, checkpointing=False)
        hidden = self.encoder.final_layernorm(t, hidden)
        return [ops.copy(t, hidden, "tower's states, by token")]

    def rotations(self, t: Tape, rows: Size) -> Tensor:
        """Of every patch: a complex number for two of a head's. Shape: (rows, width of a head)."""
        with t.temporary(rows * self.head, "float32", self.head, "rotations by picture"):
            return t.new(rows * self.head, "float32", self.head, "rotations")


class MoonProjector(Module):
    """A norm on every patch, and two layers on a token's."""

    def __init__(self, inputs: int, merged: int, hidden: int) -> None:
        self.pre_norm = LayerNorm(inputs)
        self.linear_1 = Linear(merged, merged, True, name="projector: first")
        self.linear_2 = Linear(merged, hidden, True, name="projector: second")

    def forward(self, t: Tape, states: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (tokens, hidden)."""
        joined = ops.copy(t, states, "tower's states of all pictures")
        x = self.pre_norm(t, joined).view(self.linear_1.in_features)
        x = self.linear_1(t, x)
        x = activation(t, x, "gelu", "projector: activated")
        return self.linear_2(t, x)


class KimiVLMedia(QwenMedia):
    """Tower and projector stand before a whole causal model."""

    tower, projector = "vision_tower", "multi_modal_projector"
    below, keeps_head = "", True
    blocks = "encoder.blocks"
    words = Media.words
    own_positions = False
    origin = (
        "Kimi-VL's own code lives on the Hub: tower and projector are walked as it reads, the language model and its loss as "
        "transformers' DeepSeek-V3; in its own code every expert is linear layers of its own, as stack.transformers=4.57 counts them"
    )

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        root.expert_targets = None  # PEFT knows DeepSeek's stacked experts by its model type alone
        super().__init__(root, outer)

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return MoonTower(v)

    def behind(self, outer: Config) -> list[tuple[str, Module]]:
        """The projector."""
        merged = self._visual.hidden * self._merge**2
        self._projector = MoonProjector(self._visual.hidden, merged, self._width)
        return [(self.projector, self._projector)]

    def buffer_bytes(self) -> int:
        """The table of rotations, a complex number for two of a head's."""
        width: int = self._visual.head
        return SIDE * SIDE * width * 4

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Nothing."""
        return []

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Made smaller where there are too many patches, never larger; padded to whole tokens."""
        return fitted(height, width, self._visual.patch_embed.patch, self._merge)

    def placed(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """What the outer forward has lives until the loss."""
        hidden = super().placed(t, hidden, call)
        self.returned.append(hidden.view())
        return hidden

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Tower, projector, and the pictures' tokens put into the embeddings' own storage."""
        (grid,) = self.grids(call.recipe).values()
        embed = self._visual.patch_embed
        pixels = Tensor(None, grid.rows * embed.values, given_dtype(call.recipe), embed.values)  # booked with the batch
        pixels = ops.cast(t, pixels, embed.proj.weight.dtype, "pictures in the tower's dtype")
        name = f"{self.tower}.{self.blocks}"
        (states,) = self._visual(t, pixels, call.of_length(grid.rows), grid, name)
        tokens = self._projector(t, states)
        self.returned += [pixels, tokens.view()]
        hidden = ops.cast(t, hidden, tokens.dtype, "embeddings in the pictures' dtype")
        if call.input_gradients:
            hidden = ops.copy(t, hidden, "embeddings, cloned")
        mask = t.new(TOKENS, "bool", 1, "places of media")
        return put(t, hidden, mask, tokens, "embeddings with pictures")


def fitted(height: int, width: int, patch: int, merge: int) -> tuple[int, int]:
    """Both sides after resizing and padding, as multiples of a token's.

    Raises:
        InvalidInput: a side has as many patches as the table of rotations.

    Source: image_processing_kimi_vl.py, `rescale`, with `pad_input` as published.
    """
    patches = (height // patch) * (width // patch)
    if patches > MOST_PATCHES:
        scale = math.sqrt(MOST_PATCHES / patches)
        height, width = int(height * scale), int(width * scale)
    factor = patch * merge
    high, wide = -(-height // factor) * factor, -(-width // factor) * factor
    if max(high, wide) // patch >= SIDE:
        raise InvalidInput(
            f"image_size: a side of this picture has {max(high, wide) // patch} patches; this processor refuses {SIDE} and more",
            field="image_size",
            hint="try image_size=448x672",
        )
    return high, wide

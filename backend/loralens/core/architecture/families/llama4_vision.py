"""Llama 4's tower: pictures in tiles and as a whole, unfolded into patches, rotary embedding as complex numbers, pixels shuffled.

Source: transformers 5.23, models/llama4/modeling_llama4.py (`Llama4VisionModel`, `Llama4ForConditionalGeneration`) and
image_processing_llama4.py (`get_best_fit`; at most 16 tiles, its default).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import Attention, LayerNorm, PlainMLP
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.families.llama4 import turned
from loralens.core.architecture.families.projected import Projected
from loralens.core.architecture.media import missing_size
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

MOST_TILES: Final = 16


class TurnedAttention(Module):
    """Four projections and complex rotary embedding around a kernel that sees the whole tile."""

    def __init__(self, hidden: int, heads: int, tokens: int, dropout: float) -> None:
        for name, label in (("q", "query"), ("k", "key"), ("v", "value")):
            setattr(self, f"{name}_proj", Linear(hidden, hidden, True, name=f"attention {label}"))
        self.o_proj = Linear(hidden, hidden, True, name="attention output projection")
        self._heads, self._tokens, self._dropout = heads, tokens, dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        hidden = self.o_proj.in_features
        width = hidden // self._heads
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        table = Tensor(None, ONE * (self._tokens * width), "float32", width)  # a buffer
        q, k = turned(t, q, k, table)
        kernel = Attention(
            self._heads, self._heads, width, width, call.attention, self._dropout, causal=False, softmax_dtype=None,
            returns_weights=True, keys=ONE * self._tokens,
        )  # fmt: skip
        out: Tensor = self.o_proj(t, kernel(t, q, k, v).view(hidden))
        return out


class TurnedLayer(Module):
    """Pre-norm attention and MLP."""

    def __init__(self, hidden: int, intermediate: int, heads: int, tokens: int, dropout: float) -> None:
        self.self_attn = TurnedAttention(hidden, heads, tokens, dropout)
        self.mlp = PlainMLP(hidden, intermediate, ("fc1", "fc2"), "gelu")
        self.input_layernorm, self.post_attention_layernorm = LayerNorm(hidden), LayerNorm(hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        t.local(t.handed.take_weights())
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = self.mlp(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Llama4VisionAdapter(Module):
    """Neighbouring patches side by side, and two layers."""

    def __init__(self, v: Config, intermediate: int, shuffled: int) -> None:
        out = v.integer("projector_output_dim", default=4096)
        self.mlp = Module()
        self.mlp.fc1 = Linear(intermediate, v.integer("projector_input_dim", default=4096), name="merger: first")
        self.mlp.fc2 = Linear(out, out, name="merger: second")
        self._dropout, self._shuffled = v.number("projector_dropout", 0.0, 0, 1), shuffled

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to (tokens, out)."""
        laid = ops.copy(t, x, "tower's states, shuffled once")
        x = ops.copy(t, laid, "tower's states, shuffled").view(self._shuffled)
        t.end(laid)
        x = self.mlp.fc1(t, x)
        x = activation(t, x, "gelu", "merger: activated")
        x = ops.dropout(t, x, self._dropout, "merger: dropout")
        return activation(t, self.mlp.fc2(t, x), "gelu", "merger: activated")


class Llama4Tower(Module):
    """The tower."""

    multiplies = False  # its own parameters are added

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=768), v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        side, patch = (
            v.integer("image_size", default=448, high=65_536),
            v.integer("patch_size", default=14, high=65_536),
        )
        wide = v.integer("intermediate_size", default=5632)
        channels = v.integer("num_channels", default=3)
        shuffle = round(1 / v.number("pixel_shuffle_ratio", 0.5, 1e-3, 1)) ** 2
        layers = v.integer("num_hidden_layers", default=34, high=MAX_LAYERS)
        dropout = v.number("attention_dropout", 0.0, 0, 1)
        self.side, self.patches = side, (side // patch) ** 2
        self.tokens, self.hidden = self.patches + 1, v.integer("vision_output_dim", default=7680)
        self.values, self.width, self.head = channels * side**2, hidden, hidden // heads
        self.made = self.patches // shuffle
        self.class_embedding = Parameter((hidden,))
        self.positional_embedding_vlm = Parameter((self.tokens, hidden))
        self.patch_embedding = Module()
        self.patch_embedding.linear = Linear(channels * patch**2, hidden, name="patch embeddings")
        self.layernorm_pre, self.layernorm_post = LayerNorm(hidden), LayerNorm(hidden)
        self.model = Module()
        self.model.layers = Stack(lambda _: TurnedLayer(hidden, wide, heads, self.tokens, dropout), [None] * layers)
        self.vision_adapter = Llama4VisionAdapter(v, wide, hidden * shuffle)
        self.unread: list[Module] = []

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        """Shapes: (tiles * values) to (tiles * tokens of a tile, out)."""
        linear, width = self.patch_embedding.linear, self.width
        unfolded = t.new(images * self.values, pixels.dtype, linear.in_features, "patches, unfolded")
        hidden = linear(t, unfolded)
        t.end(unfolded)
        if call.input_gradients:
            t.require_grad(hidden)
        first = ops.broadcast(t, t.parameter(self.class_embedding), images * width, "class token", summed=True)
        if t.autocast is not None:  # autocast concatenates in the wider dtype
            hidden = ops.cast(t, hidden, first.dtype, "patch embeddings in the wider dtype")
        hidden = ops.cat(t, [hidden, first], width, "patches and class token")
        positions = t.parameter(self.positional_embedding_vlm)
        if several:
            positions = ops.broadcast(t, positions, hidden.numel, "position embeddings", summed=True)
        else:
            positions.numel = hidden.numel
        hidden = ops.add(t, hidden, positions, "patches in their places")
        hidden = self.layernorm_pre(t, hidden)
        layers = self.model.layers.layers
        found = walk_stack(t, "vision_model.model.layers", layers, hidden, call, checkpointing=call.checkpointing)
        t.local(found)
        hidden = self.layernorm_post(t, found)
        hidden = ops.cut(t, hidden, "tower's states without the class token", numel=images * (self.patches * width))
        return self.vision_adapter(t, hidden)


class Llama4Media(Projected):
    """Tower and projector stand beside a whole causal model, head and all: what the outer forward holds lives through the loss."""

    usual = "llama4_vision_model"
    tower = "vision_model"
    below, keeps_head = "", True

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """Its own tower."""
        v = outer.nested("vision_config")
        return v is not None and v.text("model_type", cls.usual) == cls.usual

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower."""
        return Llama4Tower(v)

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """One layer."""
        projector = Module()
        projector.linear_1 = Linear(inputs, hidden, name="projector")
        return projector

    def tokens(self) -> int:
        """Of one tile."""
        found: int = self._vision.made
        return found

    def buffer_bytes(self) -> int:
        """The rotations."""
        rotations: int = self._vision.tokens * self._vision.head * 4
        return rotations

    def tiles(self, recipe: Recipe) -> int:
        """And the whole picture, where it has more than one."""
        if recipe.image_size is None:
            raise missing_size("672x1008")
        down, across = best_fit(recipe.image_size, self._vision.side, MOST_TILES)
        return down * across + (down * across > 1)

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """The adapter's result and its projection."""
        states = self._vision(t, pixels, call, images, several)
        held.append(states)
        out: Tensor = self._projector.linear_1(t, states)
        return out


def best_fit(size: tuple[int, int], side: int, most: int) -> tuple[int, int]:
    """Tiles down and across: the least enlargement that holds the whole picture, else the least reduction; then the least area."""
    height, width = size
    shapes = [(down, across) for down in range(1, most + 1) for across in range(1, most + 1) if down * across <= most]
    scales = {shape: min(shape[0] * side / height, shape[1] * side / width) for shape in shapes}
    larger = [scale for scale in scales.values() if scale >= 1]
    chosen = min(larger) if larger else max(scales.values())
    return min((shape for shape in shapes if scales[shape] == chosen), key=lambda shape: shape[0] * shape[1])

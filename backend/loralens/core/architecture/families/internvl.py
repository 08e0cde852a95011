"""InternVL: pictures cut into tiles and a thumbnail, layers whose branches are scaled, four patches into one token.

Source: transformers 5.23, models/internvl/{modeling,processing}_internvl.py, models/got_ocr2/image_processing_got_ocr2.py
(`get_optimal_tiled_canvas`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import Attention, LayerNorm, PlainMLP, RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.families.projected import Projected
from loralens.core.architecture.media import missing_size
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

MOST_TILES: Final = 12


class ScaledAttention(Module):
    """Four projections around a kernel that sees the whole tile."""

    def __init__(self, v: Config, hidden: int, heads: int, tokens: int) -> None:
        bias, norm = v.flag("attention_bias", False), v.flag("use_qk_norm", False)
        for name, label in (("q", "query"), ("k", "key"), ("v", "value")):
            setattr(self, f"{name}_proj", Linear(hidden, hidden, bias, name=f"attention {label}"))
        self.projection_layer = Linear(hidden, hidden, True, name="attention output projection")
        if norm:
            self.q_norm, self.k_norm = RMSNorm(hidden), RMSNorm(hidden)
        self._heads, self._tokens, self._normed = heads, tokens, norm

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        hidden = self.projection_layer.in_features
        width = hidden // self._heads
        q, k, v = self.q_proj(t, x), self.k_proj(t, x), self.v_proj(t, x)
        if self._normed:
            q = self.q_norm(t, q)
            k = self.k_norm(t, k)
        kernel = Attention(
            self._heads, self._heads, width, width, call.attention, causal=False, softmax_dtype=None,
            keys=ONE * self._tokens,
        )  # fmt: skip
        out: Tensor = self.projection_layer(t, kernel(t, q.view(width), k.view(width), v.view(width)).view(hidden))
        return out


class ScaledLayer(Module):
    """Pre-norm attention and MLP, each branch times a learned vector."""

    def __init__(self, v: Config, hidden: int, heads: int, tokens: int) -> None:
        norm = RMSNorm if v.text("norm_type", "layer_norm") == "rms_norm" else LayerNorm
        act = known(v.text("hidden_act", "gelu"), "config.vision_config.hidden_act")
        self.lambda_1, self.lambda_2 = Parameter((hidden,)), Parameter((hidden,))
        self.attention = ScaledAttention(v, hidden, heads, tokens)
        self.mlp = PlainMLP(hidden, v.integer("intermediate_size", default=4096), ("fc1", "fc2"), act)
        self.layernorm_before, self.layernorm_after = norm(hidden), norm(hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        branch = self.attention(t, self.layernorm_before(t, hidden), call)
        branch = ops.mul(t, branch, t.parameter(self.lambda_1), "branch, scaled")
        hidden = ops.add(t, branch, hidden, "residual stream after attention")
        out = self.layernorm_after(t, hidden)
        out = self.mlp(t, out)
        out = ops.mul(t, out, t.parameter(self.lambda_2), "branch, scaled")
        return ops.add(t, out, hidden, "residual stream after the layer")


class InternEmbeddings(Module):
    """Patches behind a first token, and their positions."""

    multiplies = False  # they are added

    def __init__(self, v: Config, hidden: int, patches: int, patch: tuple[int, int]) -> None:
        self.cls_token = Parameter((1, 1, hidden))
        self.patch_embeddings = Module()
        self.patch_embeddings.projection = Convolution(
            v.integer("num_channels", default=3), hidden, *patch, name="patch embeddings"
        )
        self.position_embeddings = Parameter((1, patches + 1, hidden))
        self._hidden, self._patches = hidden, patches

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        """Shapes: (tiles * values) to (tiles * (patches + 1), hidden)."""
        projection = self.patch_embeddings.projection
        pixels = ops.cast(t, pixels, projection.weight.dtype, "pictures in the weights' dtype")
        patches = projection(t, pixels, images * self._patches)
        if call.input_gradients:
            t.require_grad(patches, copied=True)  # the patches lie last in memory, the hidden values first
        first = ops.broadcast(t, t.parameter(self.cls_token), images * self._hidden, "first token", summed=several)
        if t.autocast is not None:  # autocast concatenates in the wider dtype
            patches = ops.cast(t, patches, first.dtype, "patch embeddings in the wider dtype")
        hidden = ops.cat(t, [first, patches], self._hidden, "patches and first token")
        positions = t.parameter(self.position_embeddings)
        if several:
            positions = ops.broadcast(t, positions, hidden.numel, "position embeddings", summed=True)
        else:
            positions.numel = hidden.numel
        return ops.add(t, hidden, positions, "patches in their places")


class InternTower(Module):
    """The tower."""

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=1024), v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        high, wide = v.pair("image_size", 448)
        patch = v.pair("patch_size", 14)
        patches = (high // patch[0]) * (wide // patch[1])
        layers = v.integer("num_hidden_layers", default=24, high=MAX_LAYERS)
        if v.flag("use_mask_token", False) or not v.flag("use_absolute_position_embeddings", True):
            raise UnsupportedArchitecture("this kind of InternVL tower is not modelled", field="config.vision_config")
        self.embeddings = InternEmbeddings(v, hidden, patches, patch)
        self.encoder = Module()
        self.encoder.layer = Stack(lambda _: ScaledLayer(v, hidden, heads, patches + 1), [None] * layers)
        if not v.flag("use_mean_pooling", True):
            self.layernorm = LayerNorm(hidden)
        self.values = v.integer("num_channels", default=3) * high * wide
        self.tokens, self.patches, self.hidden, self.side = patches + 1, patches, hidden, (high, wide)
        self.unread: list[Module] = []

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        """Shapes: (tiles * values) to (tiles * tokens, hidden)."""
        hidden = t.local(self.embeddings(t, pixels, call, images, several))
        layers = self.encoder.layer.layers
        hidden = walk_stack(
            t, "model.vision_tower.encoder.layer", layers, hidden, call, checkpointing=call.checkpointing
        )
        return self.layernorm(t, hidden) if "layernorm" in vars(self) else hidden


class InternProjector(Module):
    """A norm and two layers."""

    def __init__(self, inputs: int, hidden: int, act: str) -> None:
        self.layer_norm = LayerNorm(inputs)
        self.linear_1 = Linear(inputs, hidden, True, name="projector: first")
        self.linear_2 = Linear(hidden, hidden, True, name="projector: second")
        self._act = act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows, hidden)."""
        x = self.layer_norm(t, x)
        x = self.linear_1(t, x)
        x = activation(t, x, self._act, "projector: activated")
        x = self.linear_2(t, x)
        return x


class InternVL(Projected):
    """Tiles of 448 pixels, 256 tokens each."""

    usual = "internvl_vision"

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """Its own tower, whose last layer is read."""
        v = outer.nested("vision_config")
        own = v is not None and v.text("model_type", cls.usual) == cls.usual
        return own and outer.entries.get("vision_feature_layer", -1) == -1

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower."""
        return InternTower(v)

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """Patches that become one token lie side by side."""
        self._shuffle = int(1 / outer.number("downsample_ratio", 0.5, 1e-3, 1)) ** 2
        act = known(outer.text("projector_hidden_act", "gelu"), "config.projector_hidden_act")
        return InternProjector(inputs * self._shuffle, hidden, act)

    def tokens(self) -> int:
        """Of one tile."""
        found: int = self._vision.patches // self._shuffle
        return found

    def buffer_bytes(self) -> int:
        """None."""
        return 0

    def tiles(self, recipe: Recipe) -> int:
        """The canvas whose shape is nearest, and a thumbnail where it has more than one tile."""
        if recipe.image_size is None:
            raise missing_size("448x896")
        across, down = canvas(recipe.image_size, self._vision.side, MOST_TILES)
        return across * down + (across * down > 1)

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """Without the first token, shuffled twice."""
        states = self._vision(t, pixels, call, images, several)
        held.append(states)
        shuffled = images * (self._vision.patches * self._vision.hidden)
        taken = ops.cut(t, states, "tower's states without the first token", numel=shuffled)
        taken = ops.copy(t, taken, "tower's states, shuffled once")
        taken = ops.copy(t, taken, "tower's states, shuffled").view(self._vision.hidden * self._shuffle)
        out: Tensor = self._projector(t, taken)
        return out


def canvas(size: tuple[int, int], tile: tuple[int, int], most: int, least: int = 1) -> tuple[int, int]:
    """Tiles across and down: the nearest shape of so many tiles; of equal ones the larger, while it is not too large.

    Source: models/got_ocr2/image_processing_got_ocr2.py.
    """
    (height, width), (tile_height, tile_width) = size, tile
    shapes = [
        (across, down) for across in range(1, most + 1) for down in range(1, most + 1) if least <= across * down <= most
    ]
    best, nearest = (1, 1), float("inf")
    for across, down in sorted(shapes, key=lambda shape: shape[0] * shape[1]):
        distance = abs(width / height - across / down)
        large = height * width > 0.5 * tile_height * tile_width * across * down
        if distance < nearest or (distance == nearest and large):
            best, nearest = (across, down), distance
    return best

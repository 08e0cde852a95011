"""The tower of Llama 3.2 Vision: tiles of a picture seen together, first by plain layers, then by gated ones.

Every picture is padded to the most tiles that one may have. None of the tower's layers is checkpointed, and the states of all
of them live until it returns, for some are concatenated to its result.

Source: transformers 5.23, models/mllama/modeling_mllama.py (`MllamaVisionModel`) and image_processing_pil_mllama.py
(`pack_images`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import Attention, LayerNorm, PlainMLP
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import InvalidInput
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.tape import Tape

ROWS = 8  # a tile's patches are padded to a multiple of so many
TAKEN = (3, 7, 15, 23, 30)
ASPECT_RATIOS = 8  # of at most four tiles


class TileAttention(Module):
    """Four projections without bias around a kernel that sees all tiles of a picture, as a mask allows."""

    def __init__(self, hidden: int, heads: int) -> None:
        for name, label in (("q", "query"), ("k", "key"), ("v", "value")):
            setattr(self, f"{name}_proj", Linear(hidden, hidden, name=f"attention {label}"))
        self.o_proj = Linear(hidden, hidden, name="attention output projection")
        self._heads = heads

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        hidden = self.o_proj.in_features
        width = hidden // self._heads
        q, k, v = self.q_proj(t, x), self.k_proj(t, x), self.v_proj(t, x)
        kernel = Attention(self._heads, self._heads, width, width, call.attention, causal=False, keys=call.length)
        out = kernel(t, q.view(width), k.view(width), v.view(width), call.masks["tiles"])
        return self.o_proj(t, out.view(hidden))


class TileLayer(Module):
    """Pre-norm attention and MLP; each branch of a gated one is times a learned number."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str, gated: bool) -> None:
        self.self_attn = TileAttention(hidden, heads)
        self.mlp = PlainMLP(hidden, intermediate, ("fc1", "fc2"), act)
        self.input_layernorm = LayerNorm(hidden)
        self.post_attention_layernorm = LayerNorm(hidden)
        if gated:
            self.gate_attn, self.gate_ffn = Parameter((1,)), Parameter((1,))
        self._gated = gated

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        if self._gated:
            hidden = gated(t, hidden, self.gate_attn, "attention branch, gated")
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = self.mlp(t, hidden)
        if self._gated:
            hidden = gated(t, hidden, self.gate_ffn, "mlp branch, gated")
        return ops.add(t, residual, hidden, "residual stream after the layer")


def gated(t: Tape, x: Tensor, gate: Parameter, label: str) -> Tensor:
    """`gate.tanh() * x`."""
    return ops.mul(t, x, ops.tanh(t, t.parameter(gate), f"{label}: tanh"), label)


class TileEmbedding(Module):
    """A vector for each tile, by the picture's shape in tiles, times a learned number."""

    def __init__(self, ratios: int, tiles: int, hidden: int) -> None:
        self.gate = Parameter((1,))
        self.embedding = Embedding(ratios + 1, tiles * hidden)

    def forward(self, t: Tape, hidden: Tensor, pictures: Size) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        embeddings: Tensor = self.embedding(t, pictures, "tile embeddings")
        embeddings = t.local(gated(t, embeddings, self.gate, "tile embeddings, gated"))
        return ops.add(t, hidden, embeddings, "patches with their tile's embedding")


class GatedPositions(Module):
    """A vector for each patch of a tile, and one for each patch of all tiles; a learned number weighs them."""

    multiplies = False  # they are added

    def __init__(self, ratios: int, tiles: int, patches: int, hidden: int) -> None:
        self.gate = Parameter((1,))
        self.embedding = Parameter((patches, hidden))
        self.tile_embedding = Embedding(ratios + 1, tiles * patches * hidden)

    def forward(self, t: Tape, hidden: Tensor, pictures: Size) -> Tensor:
        """Shapes: (pictures * tiles * patches, hidden) to the same."""
        rest = ops.shift(t, ops.tanh(t, t.parameter(self.gate), "positions: tanh of the gate"), "positions: 1 - gate")
        own = t.local(ops.mul(t, t.parameter(self.embedding), rest, "positions in a tile, gated"))
        hidden = ops.add(t, hidden, ops.broadcast(t, own, hidden.numel, "positions in a tile", summed=True), "patches")
        tiles = t.local(self.tile_embedding(t, pictures, "positions in all tiles"))
        tiles = t.local(gated(t, tiles, self.gate, "positions in all tiles, gated"))
        return ops.add(t, hidden, tiles, "patches in their places")


class MllamaTower(Module):
    """The tower. Its result has the last states beside those of some layers: `width` values for each patch."""

    def __init__(self, v: Config) -> None:
        hidden = v.integer("hidden_size", default=1280)
        heads = v.integer("attention_heads", "num_attention_heads", default=16)
        v.divides("attention_heads", hidden, heads)
        layers = v.integer("num_hidden_layers", default=32, high=MAX_LAYERS)
        last = v.integer("num_global_layers", default=8, high=MAX_LAYERS)
        wide = v.integer("intermediate_size", default=5120)
        side, patch = (
            v.integer("image_size", default=448, high=65_536),
            v.integer("patch_size", default=14, high=65_536),
        )
        act = known(v.text("hidden_act", "gelu"), "config.vision_config.hidden_act")
        self.tiles = v.integer("max_num_tiles", default=4, high=1_024)
        self.patches = (side // patch) ** 2 + 1
        self.padded = -(-self.patches // ROWS) * ROWS
        channels = v.integer("num_channels", default=3)
        self.values = self.tiles * channels * side**2
        taken = v.integers("intermediate_layers_indices", high=MAX_LAYERS)
        self.taken = list(TAKEN) if taken is None else taken
        if any(index >= layers for index in self.taken):
            raise InvalidInput(
                f"config.vision_config.intermediate_layers_indices {self.taken}: the tower has {layers} layers",
                field="config.vision_config.intermediate_layers_indices",
            )
        given = v.entries.get("supported_aspect_ratios")
        ratios = len(given) if isinstance(given, (list, tuple)) else ASPECT_RATIOS
        self.hidden, self.width = hidden, hidden * (len(self.taken) + 1)
        self.class_embedding = Parameter((hidden,))
        self.patch_embedding = Convolution(channels, hidden, patch, patch, name="patch embeddings", bias=False)
        self.gated_positional_embedding = GatedPositions(ratios, self.tiles, self.patches, hidden)
        self.pre_tile_positional_embedding = TileEmbedding(ratios, self.tiles, hidden)
        self.post_tile_positional_embedding = TileEmbedding(ratios, self.tiles, hidden)
        self.layernorm_pre, self.layernorm_post = LayerNorm(hidden), LayerNorm(hidden)
        self.transformer, self.global_transformer = Module(), Module()
        self.transformer.layers = Stack(lambda _: TileLayer(hidden, wide, heads, act, False), [None] * layers)
        self.global_transformer.layers = Stack(lambda _: TileLayer(hidden, wide, heads, act, True), [None] * last)

    def forward(self, t: Tape, pixels: Tensor, call: Call, pictures: Size) -> Tensor:
        """Shapes: (pictures * values) to (pictures * tiles * patches, width)."""
        rows, hidden_size = pictures * (self.tiles * self.patches), self.hidden
        pixels = ops.cast(t, pixels, self.patch_embedding.weight.dtype, "pictures in the weights' dtype")
        patches = t.local(self.patch_embedding(t, pixels, pictures * (self.tiles * (self.patches - 1))))
        if call.input_gradients:
            t.require_grad(patches, copied=True)  # the patches lie last in memory, the hidden values first
        hidden = self.pre_tile_positional_embedding(t, patches, pictures)
        first = ops.broadcast(
            t, t.parameter(self.class_embedding), pictures * (self.tiles * hidden_size), "first token", summed=True
        )
        hidden = ops.cat(t, [first, hidden], hidden_size, "first token and patches")
        hidden = self.gated_positional_embedding(t, hidden, pictures)
        hidden = self.layernorm_pre(t, hidden)
        padded = pictures * (self.tiles * self.padded * hidden_size)
        hidden = derivatives.padded(t, hidden, "patches, padded", numel=padded)
        call.masks["tiles"] = self._mask(t, call, pictures, hidden.dtype)
        states = self._layers(t, "transformer", hidden, call)
        hidden = self.layernorm_post(t, states[-1])
        hidden = self.post_tile_positional_embedding(t, hidden, pictures)
        last = self._layers(t, "global_transformer", hidden, call)[-1]
        hidden = ops.cut(t, last, "patches without padding", numel=rows * hidden_size)
        taken = ops.cat(
            t, [states[index] for index in self.taken], hidden_size * len(self.taken), "states of some layers"
        )
        taken = t.local(ops.cut(t, taken, "states without padding", numel=rows * (hidden_size * len(self.taken))))
        return ops.cat(t, [hidden, taken], self.width, "states of the last layer and of some")

    def _mask(self, t: Tape, call: Call, pictures: Size, dtype: str) -> Tensor:
        """Which rows of a picture see each other: a product of rows with themselves, times the least number."""
        pairs = pictures * (self.tiles * self.padded) ** 2
        dtype = t.autocast or self.patch_embedding.weight.dtype
        with t.temporary(pairs, dtype, 1, "attention mask: product"):
            return t.new(pairs, dtype, 1, "attention mask")

    def _layers(self, t: Tape, name: str, hidden: Tensor, call: Call) -> list[Tensor]:
        """Every layer's states, which live until the tower returns."""
        states = []
        for index, layer in enumerate(getattr(self, name).layers.layers):
            full = f"model.vision_model.{name}.layers"
            hidden = walk_stack(t, full, [layer], hidden, call, checkpointing=False, first=index)
            states.append(t.local(hidden))
        return states

"""SigLIP and CLIP as towers: patches of pictures of one size, pre-norm layers that see the whole picture.

Source: transformers 5.23, models/{siglip,clip}/modeling_*.py.
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
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.tape import Tape


class TowerAttention(Module):
    """Four projections around a kernel that sees the whole picture. `tokens`: of one; None: as many as the call says (`beside`)."""

    def __init__(self, hidden: int, heads: int, tokens: int | None, dropout: float) -> None:
        for name, label in (("k", "key"), ("v", "value"), ("q", "query")):
            setattr(self, f"{name}_proj", Linear(hidden, hidden, True, name=f"attention {label}"))
        self.out_proj = Linear(hidden, hidden, True, name="attention output projection")
        self._heads, self._tokens, self._dropout = heads, tokens, dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        width = self.out_proj.in_features // self._heads
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        kernel = Attention(
            self._heads,
            self._heads,
            width,
            width,
            call.attention,
            self._dropout,
            causal=False,
            keys=ONE * (call.beside if self._tokens is None else self._tokens),
        )
        out: Tensor = self.out_proj(t, kernel(t, q, k, v, call.masks.get("pictures")).view(self.out_proj.in_features))
        return out


class TowerLayer(Module):
    """Pre-norm attention and MLP."""

    def __init__(
        self, hidden: int, intermediate: int, heads: int, tokens: int | None, act: str, dropout: float
    ) -> None:
        self.layer_norm1 = LayerNorm(hidden)
        self.self_attn: Module = TowerAttention(hidden, heads, tokens, dropout)
        self.layer_norm2 = LayerNorm(hidden)
        self.mlp = PlainMLP(hidden, intermediate, ("fc1", "fc2"), act)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.layer_norm1(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.layer_norm2(t, hidden)
        hidden = self.mlp(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Patches(Module):
    """A vector for each patch, with CLIP one more in front of them, and their positions."""

    def __init__(self, v: Config, hidden: int, patch: int, side: int, *, first: bool) -> None:
        channels = v.integer("num_channels", default=3)
        if first:
            self.class_embedding = Parameter((hidden,))
        self.patch_embedding = Convolution(channels, hidden, patch, patch, name="patch embeddings", bias=not first)
        self.patches = (side // patch) ** 2
        self.tokens = self.patches + first
        self.position_embedding = Embedding(self.tokens, hidden)
        self.values = channels * side**2
        self._hidden, self._first = hidden, first

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool) -> Tensor:
        """Shapes: (pictures * values) to (pictures * tokens, hidden)."""
        pixels = ops.cast(t, pixels, self.patch_embedding.weight.dtype, "pictures in the weights' dtype")
        hidden = self.patch_embedding(t, pixels, images * self.patches)
        if call.input_gradients:
            t.require_grad(hidden, copied=True)  # the patches lie last in memory, the hidden values first
        if self._first:
            first = ops.broadcast(
                t, t.parameter(self.class_embedding), images * self._hidden, "first token", summed=True
            )
            if t.autocast is not None:  # autocast concatenates in the wider dtype
                hidden = ops.cast(t, hidden, first.dtype, "patch embeddings in the wider dtype")
            hidden = ops.cat(t, [first, hidden], self._hidden, "patches and first token")
        positions = self.position_embedding(t, ONE * self.tokens, "position embeddings")
        if several:
            positions = ops.broadcast(t, positions, hidden.numel, "position embeddings", summed=True)
        return ops.add(t, hidden, positions, "patches in their places")


class EncoderTower(Module):
    """The tower. `clip`: a first token, a norm before the layers, and one behind them that only the first token sees."""

    name = "vision_tower"  # where it stands in the model

    def __init__(self, v: Config, *, clip: bool, feature_layer: int | None = None) -> None:
        hidden = v.integer("hidden_size", default=768)
        heads = v.integer("num_attention_heads", default=12)
        v.divides("num_attention_heads", hidden, heads)
        layers = v.integer("num_hidden_layers", default=12, high=MAX_LAYERS)
        wide = v.integer("intermediate_size", default=3072)
        patch = v.integer("patch_size", default=32 if clip else 16, high=65_536)
        side = v.integer("image_size", default=224, high=65_536)
        act = known(
            v.text("hidden_act", "quick_gelu" if clip else "gelu_pytorch_tanh"), "config.vision_config.hidden_act"
        )
        dropout = v.number("attention_dropout", 0.0, 0, 1)
        self.embeddings = Patches(v, hidden, patch, side, first=clip)
        tokens = self.embeddings.tokens
        if clip:
            self.pre_layrnorm = LayerNorm(hidden)
        self.encoder = Module()
        self.taken = layers if feature_layer is None else feature_layer % (layers + 1)
        if not self.taken:
            raise InvalidInput(
                f"config.vision_feature_layer {feature_layer} is none of the {layers} layers",
                field="config.vision_feature_layer",
            )
        self.encoder.layers = Stack(
            lambda _: TowerLayer(hidden, wide, heads, tokens, act, dropout), [at < self.taken for at in range(layers)]
        )
        self.post_layernorm = LayerNorm(hidden)
        if not clip and v.flag("vision_use_head", True):
            self.head = PoolingHead(hidden, wide)
        self.before_norm = feature_layer is not None  # the states of a layer, also of the last, are read as they are
        self.hidden, self.clip, self.side = hidden, clip, side
        self.values, self.tokens = self.embeddings.values, tokens

    @property
    def layers(self) -> list[Module]:
        """The encoder's."""
        found: list[Module] = self.encoder.layers.layers
        return found

    @property
    def unread(self) -> list[Module]:
        """What comes behind the states that are read."""
        behind: list[Module] = [self.head] if "head" in vars(self) else []
        behind += [self.post_layernorm] if self.clip or self.before_norm else []
        return [*behind, *self.layers[self.taken :]]

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool) -> list[Tensor]:
        """The states that are read, and what the layers behind them make of these.

        Shapes: (pictures * values) to (pictures * tokens, hidden).
        """
        name, layers, taken = f"model.{self.name}.encoder.layers", self.layers, self.taken
        hidden = t.local(self.embeddings(t, pixels, call, images, several))
        if self.clip:
            hidden = t.local(self.pre_layrnorm(t, hidden))
        found = walk_stack(t, name, layers[:taken], hidden, call, checkpointing=call.checkpointing)
        if taken < len(layers):
            last = walk_stack(t, name, layers[taken:], found, call, checkpointing=call.checkpointing, first=taken)
            return [found, last]
        if self.clip:
            return [found]
        if self.before_norm:
            return [found, self.post_layernorm(t, found)]
        t.local(found)
        return [self.post_layernorm(t, found)]


class PoolingHead(Module):
    """SigLIP's pooled vector, which no language model reads: it trains in name only."""

    multiplies = False

    def __init__(self, hidden: int, wide: int) -> None:
        self.probe = Parameter((1, 1, hidden))
        self.attention = Module()
        self.attention.multiplies = False
        self.attention.in_proj_weight = Parameter((3 * hidden, hidden))
        self.attention.in_proj_bias = Parameter((3 * hidden,))
        self.attention.out_proj = Linear(hidden, hidden, True, name="pooling output projection")
        self.layernorm = LayerNorm(hidden)
        self.mlp = PlainMLP(hidden, wide, ("fc1", "fc2"), "gelu")

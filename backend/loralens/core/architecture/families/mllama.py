"""Llama 3.2 Vision: Llama's layers, and among them layers that look at pictures and at no text.

A picture takes one place of the sequence, whatever its size. Where no sample holds one, these layers are skipped.

Source: transformers 5.23, models/mllama/modeling_mllama.py (`MllamaForConditionalGeneration`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.blocks import Attention, GatedMLP, RMSNorm
from loralens.core.architecture.causal import lookup
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.families.mllama_vision import MllamaTower, gated
from loralens.core.architecture.media import Media, Pictures
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.kernels import ALIGNMENT
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe

LOOKING = (3, 8, 13, 18, 23, 28, 33, 38)
SPECIAL_TOKENS = 8  # of the embedding, which the head has not


class CrossAttention(Module):
    """Queries of the text, normed head by head; keys and values of the pictures."""

    def __init__(self, s: Shape) -> None:
        self.q_proj = Linear(s.hidden, s.heads * s.head_dim, name="attention query")
        self.k_proj = Linear(s.hidden, s.kv_heads * s.head_dim, name="attention key")
        self.v_proj = Linear(s.hidden, s.kv_heads * s.head_dim, name="attention value")
        self.o_proj = Linear(s.heads * s.head_dim, s.hidden, name="attention output projection")
        self.q_norm, self.k_norm = RMSNorm(s.head_dim), RMSNorm(s.head_dim)
        self._s = s

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, seen, mask = self._s, call.shared["pictures"], call.masks["pictures"]
        q = self.q_norm(t, self.q_proj(t, x).view(s.head_dim))
        k, v = self.k_proj(t, seen).view(s.head_dim), self.v_proj(t, seen).view(s.head_dim)
        k = self.k_norm(t, k)
        keys = seen.numel[3] // s.hidden  # of a sample
        if call.attention == "sdpa" and keys % ALIGNMENT:
            mask = t.new(TOKENS * (keys + -keys % ALIGNMENT), t.autocast or q.dtype, 1, "attention mask, padded")
        kernel = Attention(
            s.heads,
            s.kv_heads,
            s.head_dim,
            s.head_dim,
            call.attention,
            s.attention_dropout,
            causal=False,
            keys=ONE * keys,
        )
        out: Tensor = self.o_proj(t, kernel(t, q, k, v, mask).view(s.heads * s.head_dim))
        return out


class LookingLayer(Module):
    """Attention to pictures and an MLP, each times a learned number."""

    def __init__(self, s: Shape) -> None:
        self.cross_attn = CrossAttention(s)
        self.input_layernorm = RMSNorm(s.hidden)
        self.cross_attn_attn_gate = Parameter((1,))
        self.mlp = GatedMLP(s.hidden, s.intermediate, act=s.act)
        self.post_attention_layernorm = RMSNorm(s.hidden)
        self.cross_attn_mlp_gate = Parameter((1,))

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.cross_attn(t, hidden, call)
        branch = gated(t, hidden, self.cross_attn_attn_gate, "attention branch, gated")
        hidden = ops.add(t, residual, branch, "residual stream after attention")
        residual = hidden
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = self.mlp(t, hidden)
        hidden = ops.mul(t, hidden, call.shared["looking rows"], "mlp branch of rows that look")
        branch = gated(t, hidden, self.cross_attn_mlp_gate, "mlp branch, gated")
        return ops.add(t, residual, branch, "residual stream after the layer")


class MllamaText(CausalDecoder):
    """The language model."""

    pictured: MllamaMedia | None = None

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, dropout=config.number("dropout", 0.0, 0, 1))
        looking = config.integers("cross_attention_layers", high=MAX_LAYERS)
        self.looking = set(LOOKING if looking is None else looking)

        def layer(looks: bool) -> Module:
            return LookingLayer(s) if looks else DecoderLayer(s, SelfAttention(s))

        inner = self.assemble(s, layer, [index in self.looking for index in range(s.layers)])
        inner.embed_tokens = Embedding(s.vocabulary + SPECIAL_TOKENS, s.hidden)

    def embed(self, t: Tape, call: Call) -> Tensor:
        """The pictures come first."""
        if self.pictured is None or self.pictured.pictures(call.recipe) is None:
            return super().embed(t, call)
        seen = self.pictured.seen(t, call)
        hidden = lookup(t, self.embedding, call)
        call.held += seen
        self.masks(t, call)
        self.tables(t, hidden, call)
        return hidden

    def run_layers(
        self, t: Tape, name: str, layers: list[Module], hidden: Tensor, call: Call, *, checkpointing: bool
    ) -> Tensor:
        """Without pictures those that look at them are skipped."""
        if "pictures" not in call.shared:
            layers = [layer for index, layer in enumerate(layers) if index not in self.looking]
        return super().run_layers(t, name, layers, hidden, call, checkpointing=checkpointing)

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """Layers that look run where there are pictures, whose keys and values they make."""
        if ".cross_attn." not in name or self.pictured is None:
            return super().uses_per_token(name, recipe)
        keys = self.pictured.keys(recipe)
        return keys / recipe.sequence_length if name.endswith(("k_proj", "v_proj")) else float(keys > 0)

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]]:
        """Causal, or all places of the pictures."""
        width, length = self.s.heads * self.s.head_dim, recipe.sequence_length
        own = float(length) if recipe.attention == "eager" else (length + 1) / 2
        keys = self.pictured.keys(recipe) if self.pictured else 0
        return [(width, keys if index in self.looking else own) for index in range(self.s.layers)]

    def attention_for(self, recipe: Recipe) -> str:
        """The masks are made in four dimensions, which flash does not take."""
        return "sdpa" if recipe.attention == "flash" else recipe.attention


class MllamaMedia(Media):
    """Tower and projector; a picture's states are seen by some layers, and take no places but one."""

    tower = "vision_model"
    projector = "multi_modal_projector"
    words = ("images", "freeze_tower")
    root: MllamaText

    def __init__(self, root: MllamaText, outer: Config) -> None:
        super().__init__(root, outer)
        self._vision = MllamaTower(outer.nested("vision_config") or Config({}))
        self._projector = Linear(self._vision.width, root.s.hidden, True, name="projector")
        self.join([(self.tower, self._vision), (self.projector, self._projector)])
        root.pictured = self

    def keys(self, recipe: Recipe) -> int:
        """Places of a sample's pictures."""
        return recipe.images * self._vision.tiles * self._vision.patches

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """All tiles, those that are padding too."""
        if not recipe.images:
            return None
        v = self._vision
        return Pictures(recipe.images * v.values, recipe.images * v.tiles * v.padded, recipe.images)

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Shapes in tiles, which tiles are there, and which tokens look at which."""
        tiles = self._vision.tiles
        return [
            ("shapes of pictures", BATCH * (recipe.images * (1 + tiles) * 8)),
            ("which tokens look at which tiles", TOKENS * (recipe.images * tiles * 8)),
        ]

    def seen(self, t: Tape, call: Call) -> list[Tensor]:
        """Puts the states that layers look at, and their masks, into the call; returns what the model's forward holds."""
        images, values = BATCH * call.recipe.images, self._vision.values
        pixels = Tensor(None, images * values, given_dtype(call.recipe), values)  # booked with the batch
        own = call.of_length(ONE * (self._vision.tiles * self._vision.padded))
        states = self._vision(t, pixels, own, images)
        call.shared["pictures"] = self._projector(t, states)
        pairs, dtype = TOKENS * self.keys(call.recipe), self._vision.patch_embedding.weight.dtype
        repeated = t.new(pairs, "int64", 1, "which tokens look at which patches")
        with t.temporary(pairs, "float32", 1, "which do not"):
            inverted = t.new(pairs, dtype, 1, "which do not, in the weights' dtype")
        with t.temporary(pairs, "bool", 1, "which do not, as booleans"):
            mask = t.new(pairs, dtype, 1, "attention mask")
        t.end(repeated)
        t.end(t.new(pairs, "bool", 1, "attention mask: which do"))
        call.shared["looking rows"] = t.new(TOKENS, dtype, 1, "rows that look")
        t.end(inverted)
        call.masks["pictures"] = mask
        return [states]

    def placed(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Nothing takes a placeholder's place."""
        return hidden

    def parameters(self) -> list[Parameter]:
        """And those of the layers that look."""
        layers = self.root.inner.layers.layers
        return super().parameters() + [
            parameter
            for index in self.root.looking
            if index < len(layers)
            for parameter in layers[index].all_parameters()
        ]

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """The projector works on all places."""
        if name.startswith(f"model.{self.projector}."):
            return self.keys(recipe) / recipe.sequence_length
        return super().uses_per_token(name, recipe)

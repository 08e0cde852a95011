"""Gemma 4's vision tower: patches padded to the most that a picture may have, Gemma 4's layers, and a mean of neighbours by a product.

Source: transformers 5.23, models/gemma4/modeling_gemma4.py (`Gemma4VisionModel`, `Gemma4Model`) and image_processing_pil_gemma4.py
(at most 280 tokens of a picture, its default).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import Attention, rotate
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.families.gemma4_clipped import Clipped
from loralens.core.architecture.families.gemma4_sound import SoundTower
from loralens.core.architecture.families.gemma4_unified import MOST_TOKENS, Embedder, Sounding, patches
from loralens.core.architecture.families.per_layer import PowerNorm
from loralens.core.architecture.families.projected import exchanged
from loralens.core.architecture.families.qwen_vision import joined, split_up
from loralens.core.architecture.media import Pictures, missing_size
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.shape import MAX_HEADS
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import hidden_places
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape


class Gemma4VisionAttention(Module):
    """Norms on query, key and value; each half of a head turns by one axis; a mask hides the padding."""

    def __init__(
        self, hidden: int, heads: int, keys: int, width: int, clips: bool, dropout: float, places: int
    ) -> None:
        self.q_proj = Clipped(hidden, heads * width, clips, "attention query")
        self.k_proj = Clipped(hidden, keys * width, clips, "attention key")
        self.v_proj = Clipped(hidden, keys * width, clips, "attention value")
        self.o_proj = Clipped(heads * width, hidden, clips, "attention output projection")
        self.q_norm, self.k_norm, self.v_norm = PowerNorm(width), PowerNorm(width), PowerNorm(width, scaled=False)
        self._heads, self._keys, self._width = heads, keys, width
        self._dropout, self._places = dropout, places

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        tables = call.shared["rotary"]
        q = self.q_proj(t, x).view(self._width)
        q = self.q_norm(t, q)
        q = turned(t, q, tables, "attention query")
        k = self.k_proj(t, x).view(self._width)
        k = self.k_norm(t, k)
        k = turned(t, k, tables, "attention key")
        v = self.v_proj(t, x).view(self._width)
        v = self.v_norm(t, v)
        mask = call.masks["pictures"]
        kernel = Attention(
            self._heads, self._keys, self._width, self._width, call.attention, self._dropout, causal=False,
            keys=ONE * self._places,
        )  # fmt: skip
        out: Tensor = self.o_proj(t, kernel(t, q, k, v, mask).view(self._heads * self._width))
        return out


def turned(t: Tape, x: Tensor, tables: tuple[Tensor, Tensor], label: str) -> Tensor:
    """Each half of the heads' width with its half of the tables, and both together again."""
    assert isinstance(x.width, int)
    half = x.width // 2
    cos, sin = (Tensor(table.storage, table.numel // 2, table.dtype, half) for table in tables)
    parts = ops.split(t, x, [half, half], f"{label}: halves")
    found = [rotate(t, part, (cos, sin), label) for part in parts]
    return ops.cat(t, found, x.width, f"{label}, whole")


class Gemma4VisionLayer(Module):
    """Attention and gated MLP with norms before and after each."""

    def __init__(self, hidden: int, attention: Gemma4VisionAttention, wide: int, act: str, clips: bool) -> None:
        self.self_attn = attention
        self.mlp = Module()
        self.mlp.gate_proj = Clipped(hidden, wide, clips, "mlp gate")
        self.mlp.up_proj = Clipped(hidden, wide, clips, "mlp up")
        self.mlp.down_proj = Clipped(wide, hidden, clips, "mlp down")
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            setattr(self, f"{name}_layernorm", PowerNorm(hidden))
        self._act = act

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.pre_feedforward_layernorm(t, hidden)
        mlp = self.mlp
        gate = activation(t, mlp.gate_proj(t, hidden), self._act, "mlp: activated gate")
        hidden = t.replace(hidden, mlp.down_proj(t, ops.mul(t, gate, mlp.up_proj(t, hidden), "mlp: product")))
        t.end(gate)
        hidden = self.post_feedforward_layernorm(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Gemma4VisionTower(Module):
    """The tower."""

    def __init__(self, v: Config) -> None:
        hidden, heads = (
            v.integer("hidden_size", default=768),
            v.integer("num_attention_heads", default=12, high=MAX_HEADS),
        )
        keys = v.integer("num_key_value_heads", default=12, high=MAX_HEADS)
        width = v.integer("head_dim", default=64, high=65_536)
        wide = v.integer("intermediate_size", default=3072)
        clips, dropout = v.flag("use_clipped_linears", False), v.number("attention_dropout", 0.0, 0, 1)
        act = known(v.text("hidden_activation", "gelu_pytorch_tanh"), "config.vision_config.hidden_activation")
        layers = v.integer("num_hidden_layers", default=16, high=MAX_LAYERS)
        self.patch = v.integer("patch_size", default=16, high=65_536)
        self.pool = v.integer("pooling_kernel_size", default=3, high=1_024)
        self.hidden, self.head = hidden, width
        self.places = MOST_TOKENS * self.pool**2  # of a picture
        self.values = 3 * self.patch**2  # of a patch
        self.patch_embedder = Module()
        self.patch_embedder.multiplies = False  # the positions are added
        self.patch_embedder.input_proj = Linear(self.values, hidden, name="patch embeddings")
        self.patch_embedder.position_embedding_table = Parameter(
            (2, v.integer("position_embedding_size", default=10_240), hidden)
        )
        self.encoder = Module()
        self.encoder.layers = Stack(
            lambda _: Gemma4VisionLayer(
                hidden, Gemma4VisionAttention(hidden, heads, keys, width, clips, dropout, self.places), wide, act, clips
            ),
            [None] * layers,
        )
        self.numbers = 2 * hidden if v.flag("standardize", False) else 0
        self.numbers += 4 * 7 * layers if clips else 0

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: Size, tokens: Size) -> Tensor:
        """Shapes: (pictures * places, values) to (tokens, hidden)."""
        rows = images * self.places
        padding = t.local(t.new(rows, "bool", 1, "which patches are padding"))
        hidden = t.local(self._embedded(t, pixels, rows, padding))
        call.masks["pictures"] = t.new(
            rows * self.places,
            "bool" if call.attention == "sdpa" else hidden.dtype,
            self.places,
            "attention mask",
        )
        call.shared["rotary"] = tuple(
            t.new(rows * self.head, hidden.dtype, self.head, f"rotary: {name}") for name in ("cos", "sin")
        )
        layers, name = self.encoder.layers.layers, "model.vision_tower.encoder.layers"
        found = t.local(walk_stack(t, name, layers, hidden, call, checkpointing=call.checkpointing))
        pooled = self._pooled(t, found, images, padding)
        kept = ops.indexed(
            t, pooled, t.new(images * MOST_TOKENS, "bool", 1, "which tokens are there"), tokens * self.hidden, self.hidden,
            "tokens that are there",
        )  # fmt: skip
        t.end(pooled)
        if self.numbers >= 2 * self.hidden:
            kept = ops.scale(t, ops.shift(t, kept, "tokens: shifted"), "tokens: standardized")
        return ops.cast(t, kept, hidden.dtype, "tokens, cast back")

    def _embedded(self, t: Tape, pixels: Tensor, rows: Size, padding: Tensor) -> Tensor:
        dtype, hidden = self.patch_embedder.input_proj.weight.dtype, self.hidden
        with t.temporary(pixels.numel, pixels.dtype, self.values, "patches: shifted"):
            scaled = t.new(pixels.numel, pixels.dtype, self.values, "patches: scaled")
        scaled = ops.cast(t, scaled, dtype, "patches in the weights' dtype")
        embedded = self.patch_embedder.input_proj(t, scaled)
        numbers = t.new(rows * 2, "int64", 2, "places of patches")
        table = t.parameter(self.patch_embedder.position_embedding_table)
        across, down = (
            looked_up(t, table, rows * hidden, hidden, numbers, f"positions: {axis}") for axis in ("across", "down")
        )
        both = ops.add(t, across, down, "positions of patches")
        t.end(numbers)
        positions = hidden_places(t, both, padding, "positions of patches that are there")
        t.end(both)
        found = ops.add(t, embedded, positions, "patches in their places")
        t.end(across, down, positions)
        return found

    def _pooled(self, t: Tape, hidden: Tensor, images: Size, padding: Tensor) -> Tensor:
        """A token for every square of patches, scaled in float32."""
        means = self._means(t, hidden_places(t, hidden, padding, "tower's states without padding"), images)
        return ops.scale(t, ops.cast(t, means, "float32", "means in float32"), "means, scaled")

    def _means(self, t: Tape, hidden: Tensor, images: Size) -> Tensor:
        """Means of neighbouring patches: a product with a matrix of their shares, for every picture."""
        shares = images * (self.places * MOST_TOKENS)
        with t.temporary(shares, "int64", MOST_TOKENS, "shares: which token"):
            plain = t.new(shares, "float32", MOST_TOKENS, "shares: in float32")
        weights = t.replace(plain, t.new(shares, "float32", MOST_TOKENS, "shares"))
        numel = images * (MOST_TOKENS * self.hidden)
        output = ops.matmul(
            t, weights, ops.cast(t, hidden, "float32", "tower's states in float32"), numel, self.hidden, "means of patches",
            flops=numel * (2 * self.places),
        )  # fmt: skip
        t.end(t.new(shares, "bool", 1, "which shares are zero"))
        return ops.cast(t, output, hidden.dtype, "means of patches")


def looked_up(t: Tape, table: Tensor, numel: Size, width: int, numbers: Tensor, label: str) -> Tensor:
    """Rows of one of the tables, which are one parameter."""
    one = ops.cut(t, table, f"{label}: table", numel=table.numel // 2)
    out = t.new(numel, table.dtype, width, label)
    size, rows = (one.numel, table.dtype, width), numel // width

    def apply(g: Tensor) -> Tensor:
        with t.temporary(rows * 4, "int64", 1, "embedding backward: sorted indices", "temporaries"):
            return t.new(*size, f"gradient: {label}", "temporaries")

    t.record(label, [out], [one], derivatives.EMBEDDING.kept(weight=one, indices=numbers), apply)
    return out


class Gemma4Media(Sounding):
    """Towers and projectors of pictures, and where the config has any, of sound."""

    tower = "vision_tower"
    projector = "embed_vision"

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        self._vision = Gemma4VisionTower(outer.nested("vision_config") or Config({}))
        self._projector = last = Embedder(self._vision.hidden, root.s.hidden)
        parts: list[tuple[str, Module]] = [(self.tower, self._vision), (self.projector, last)]
        root.buffer_numbers += self._vision.numbers
        audio = outer.nested("audio_config")
        if audio is not None:
            self.sound = ("audio_tower", "embed_audio")
            heard = SoundTower(audio)
            last = Embedder(heard.out, root.s.hidden)
            parts += [("audio_tower", heard), ("embed_audio", last)]
            root.buffer_numbers += heard.numbers
        if root.tied:  # transformers' quantizers leave out what has the last parameter, which is not the head's then
            last.embedding_projection.packable = False
        self.join(parts)

    def buffer_bytes(self) -> int:
        """Inverse frequencies and their copy."""
        return self._vision.head // 4 * 4 * 2

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """As large as so many tokens allow; padded to them."""
        if not recipe.images:
            return None
        if recipe.image_size is None:
            raise missing_size("512x768")
        v = self._vision
        tokens = patches(*recipe.image_size, v.patch * v.pool, MOST_TOKENS)
        rows = v.places * recipe.images
        return Pictures(rows * v.values, rows, tokens * recipe.images)

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Places of patches, and a kind for every token."""
        return [
            ("places of patches", BATCH * (self._vision.places * recipe.images * 2 * 8)),
            ("kinds of tokens", TOKENS * 8),
        ]

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """The tokens that are there, in their places."""
        values = self._vision.values
        pixels = Tensor(None, BATCH * pictures.values, given_dtype(call.recipe), values)  # booked with the batch
        own = replace(call.of_length(BATCH * pictures.rows), checkpointing=call.checkpointing)
        states = self._vision(t, pixels, own, BATCH * call.recipe.images, BATCH * pictures.tokens)
        tokens = split_up(t, self._projector(t, states))
        call.held += [states, tokens]
        return exchanged(self, t, hidden, call, joined(t, tokens, "pictures: tokens of all, joined"))

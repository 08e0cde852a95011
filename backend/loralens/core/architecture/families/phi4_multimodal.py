"""Phi-4 multimodal: pictures in crops of 448 pixels in SigLIP's tower, whose last layer but one is read; Phi-3's layers.

What the tower makes behind the layer that is read, a layer, a norm and a pooled vector, is dropped when the features are there.
Source: transformers 5.23, models/phi4_multimodal/{modeling,image_processing}_phi4_multimodal.py. Its checkpoint's own adapters for
pictures and for sound are no part of the model that transformers builds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.families.encoder_towers import PoolingHead, TowerLayer
from loralens.core.architecture.families.gemma4_unified import SILENT
from loralens.core.architecture.families.idefics3 import NumberedPatches
from loralens.core.architecture.families.internvl import canvas
from loralens.core.architecture.families.phi3 import Phi3
from loralens.core.architecture.families.phi4_sound import SoundEmbedding
from loralens.core.architecture.families.projected import average
from loralens.core.architecture.families.qwen_vision import joined
from loralens.core.architecture.families.sam_attention import laid_by_place
from loralens.core.architecture.media import Media, Pictures, missing_size
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import InvalidInput, UnsupportedArchitecture
from loralens.core.question.precision import promote
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.scatter import put_into_copy
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

SIDE: Final = 448  # pixels of a crop
PATCH: Final = 14
MOST_CROPS: Final = 36
SHORTEST: Final = 10  # pixels to which a side may shrink


@dataclass(frozen=True, slots=True)
class Cut:
    """A picture in crops, and how many patches of them lie on it, down and across."""

    down: int
    across: int
    rows: int
    columns: int

    @property
    def whole(self) -> bool:
        """Does it fill its crops?"""
        patches = SIDE // PATCH
        return (self.rows, self.columns) == (self.down * patches, self.across * patches)

    @property
    def useful(self) -> tuple[int, int]:
        """Places down and across, each of two patches by two."""
        return -(-self.rows // 2), -(-self.columns // 2)

    @property
    def tokens(self) -> int:
        """Of the crops and the whole picture, with the ends of their rows and what stands between them."""
        (high, wide), side = self.useful, SIDE // PATCH // 2
        return high * (wide + 1) + 1 + side * (side + 1)


def cut(height: int, width: int) -> Cut:
    """The crops that a picture is resized to and padded.

    Source: models/phi4_multimodal/image_processing_phi4_multimodal.py, `dynamic_preprocess`.

    Raises:
        InvalidInput: the processor refuses a picture that is so long for its width.
    """
    across, down = -(-width // SIDE), -(-height // SIDE)
    if down * across > MOST_CROPS:
        across, down = canvas((height, width), (SIDE, SIDE), MOST_CROPS)
    high, wide = down * SIDE, across * SIDE
    padded_high, padded_wide = 0, 0
    if wide / width < high / height:
        padded_high = high - int(height * (wide / width))
    else:
        padded_wide = wide - int(width * (high / height))
    if min(high - padded_high, wide - padded_wide) < SHORTEST:
        raise InvalidInput(
            f"image_size {height} × {width}: one side would be less than {SHORTEST} pixels, which this processor refuses",
            field="image_size",
            hint="try image_size=500,700 (height, width)",
        )
    return Cut(down, across, high // PATCH - padded_high // PATCH, wide // PATCH - padded_wide // PATCH)


class Phi4Layer(TowerLayer):
    """Its gradient comes from an average of neighbours, which lies with the channels first: each branch lays it by place."""

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.layer_norm1(t, hidden)
        hidden = laid_by_place(t, self.self_attn(t, hidden, call), self.self_attn.out_proj)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.layer_norm2(t, hidden)
        hidden = laid_by_place(t, self.mlp(t, hidden), self.mlp.fc2)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Phi4Patches(NumberedPatches):
    """A vector for each patch, and one for its place, which depends on how many patches are there."""

    def forward(self, t: Tape, pixels: Tensor, call: Call, rows: Size) -> Tensor:
        """Shapes: (crops * values) to (crops * patches, hidden)."""
        patches = t.local(self.patch_embedding(t, pixels, rows))
        if call.input_gradients:
            t.require_grad(patches, copied=True)  # the channels lie first in memory, in the gradient last
        with t.temporary(rows, "int64", 1, "numbers of places"):
            t.local(t.new(rows, "int64", 1, "numbers of places"))
            numbers = t.local(t.new(rows, "int64", 1, "numbers of places"))
        return ops.add(
            t, patches, self.position_embedding(t, rows, "position embeddings", numbers), "patches in places"
        )


class Phi4Tower(Module):
    """SigLIP, with its head."""

    def __init__(self, v: Config) -> None:
        hidden, heads = v.integer("hidden_size", default=1152), v.integer("num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        side, patch = v.integer("image_size", default=SIDE), v.integer("patch_size", default=PATCH, high=65_536)
        if (side, patch) != (SIDE, PATCH) or v.integer("crop_size", default=SIDE) != SIDE:
            raise UnsupportedArchitecture(
                f"Phi-4 multimodal is modelled with crops of {SIDE} pixels in patches of {PATCH}",
                field="config.vision_config",
            )
        layers = v.integer("num_hidden_layers", default=27, high=MAX_LAYERS)
        wide = v.integer("intermediate_size", default=4304)
        act = known(v.text("hidden_act", "gelu_pytorch_tanh"), "config.vision_config.hidden_act")
        layer = v.entries.get("feature_layer", -2)
        self.taken = layer % (layers + 1) if isinstance(layer, int) else 0
        if not 0 < self.taken < layers:
            raise UnsupportedArchitecture(
                f"feature_layer {layer!r:.20} is not modelled: a layer before the last is read",
                field="config.vision_config.feature_layer",
            )
        dropout = v.number("attention_dropout", 0.0, 0, 1)
        self.tokens, self.hidden = (side // patch) ** 2, hidden
        self.values = v.integer("num_channels", default=3) * side**2
        self.embeddings = Phi4Patches(v.integer("num_channels", default=3), hidden, patch, side)
        self.encoder = Module()
        self.encoder.layers = Stack(
            lambda _: Phi4Layer(hidden, wide, heads, self.tokens, act, dropout),
            [at < self.taken for at in range(layers)],
        )
        self.post_layernorm = LayerNorm(hidden)
        self.head = PoolingHead(hidden, wide)
        self.head.attention.out_proj.packable = False  # of a class of its own

    @property
    def unread(self) -> list[Module]:
        """What stands behind the states that are read."""
        return [self.head, self.post_layernorm, *self.encoder.layers.layers[self.taken :]]

    def forward(self, t: Tape, pixels: Tensor, call: Call, crops: Size, padded: bool, name: str) -> list[Tensor]:
        """The states that are read, and what the tower returns beside them. Shapes: (crops * values) to (crops * patches, hidden)."""
        embedded = self.embeddings(t, pixels, call, crops * self.tokens)
        layers, taken = self.encoder.layers.layers, self.taken
        mask = t.new(crops * self.tokens**2, "bool", self.tokens, "attention mask of the tower") if padded else None
        own = replace(call, masks={"pictures": mask})
        name = f"{name}.encoder.layers"
        found = walk_stack(t, name, layers[:taken], embedded, own, checkpointing=call.checkpointing)
        last = walk_stack(t, name, layers[taken:], found, own, checkpointing=call.checkpointing, first=taken)
        normed = self.post_layernorm(t, last)
        return [found, embedded, last, normed, *_pooled(t, normed)]


def _pooled(t: Tape, x: Tensor) -> list[Tensor]:
    """What the head's attention makes of the states, by its own code: keys and values of all of them, laid out by head."""
    t.local(t.new(ops.divide(x.numel, x.width), "bool", 1, "which patches are not there"))
    t.local(t.new(ops.divide(x.numel, x.width), x.dtype, 1, "pooled: additive mask"))
    seen = ops.copy(t, x, "pooled: states by place")
    both = t.new(x.numel * 2, t.autocast or x.dtype, x.width, "pooled: keys and values")
    laid = ops.copy(t, both, "pooled: keys and values by head")
    t.end(both)
    return [seen, laid]


class ImageEmbedding(Module):
    """The tower, an average of neighbours, vectors at the ends of rows and between pictures, and two layers."""

    def __init__(self, v: Config, hidden: int) -> None:
        self.img_processor = Phi4Tower(v)
        width = self.img_processor.hidden
        self.img_projection_up = Linear(width, hidden, True, name="projector: first")
        self.img_projection_down = Linear(hidden, hidden, True, name="projector: second")
        self.global_img_feature_extensor = Parameter((1, 1, width))
        self.sub_img_feature_extensor = Parameter((1, 1, 1, width))

    def forward(self, t: Tape, pixels: Tensor, call: Call, images: int, found: Cut, name: str) -> Tensor:
        """Shapes: (crops * values) to (tokens, hidden)."""
        tower = self.img_processor
        crops = BATCH * (images * (1 + found.down * found.across))
        pixels = t.local(
            ops.cast(t, pixels, tower.embeddings.patch_embedding.weight.dtype, "pictures in the weights' dtype")
        )
        several = images > 1 or call.validity.exceeds("micro_batch_size", 1)
        packed = t.local(self._packed(t, self._averaged(t, pixels, call, crops, found, name), images, found, several))
        bias = self.img_projection_up.bias
        dtype = packed.dtype if bias is None else bias.dtype
        states = self.img_projection_up(t, ops.cast(t, packed, dtype, "projector: input"))
        states = ops.gelu(t, states, "projector: activated")
        states = t.local(self.img_projection_down(t, states))
        return joined(t, states, "pictures: tokens of all, joined")

    def _averaged(self, t: Tape, pixels: Tensor, call: Call, crops: Size, found: Cut, name: str) -> Tensor:
        tower = self.img_processor
        t.local(t.new(crops * tower.tokens, "bool", 1, "which patches are there"))
        states, *_beside = tower(t, pixels, call, crops, not found.whole, name)
        return average(t, states, crops * (tower.tokens // 4 * tower.hidden))

    def _packed(self, t: Tape, features: Tensor, images: int, found: Cut, several: bool) -> Tensor:
        """Of every picture its crops' places that lie on it, the whole one's, and what stands between and at the ends of rows."""
        width, (high, wide) = self.img_processor.hidden, found.useful
        ends, between = t.parameter(self.sub_img_feature_extensor), t.parameter(self.global_img_feature_extensor)
        dtype = promote(features.dtype, ends.dtype) if t.autocast is not None else features.dtype
        out = t.new(BATCH * (images * found.tokens * width), dtype, width, "pictures: tokens of each")
        one = ONE * (found.down * found.across * 256 * width)
        t.end(t.new(one, features.dtype, width, "crops of a picture, laid out"))
        for rows, name in ((high * (wide + 1), "crops"), (16 * 17, "whole picture")):
            t.local(t.new(ONE * (rows * width), dtype, width, f"tokens of a picture's {name}"))
        sizes = [(x.numel, x.dtype, x.width, x.node is not None) for x in (features, ends, between)]

        def apply(g: Tensor) -> list[Tensor | None]:
            made = [
                t.new(n, d, w, "gradient: tokens of each", "temporaries") if own else None for n, d, w, own in sizes
            ]
            if not several and made[2] is not None:  # a part of the whole gradient, which it keeps
                made[2] = t.replace(made[2], Tensor(g.storage, *sizes[2][:3]).as_view())
            return made

        t.record("pictures: tokens of each", [out], [features, ends, between], [], apply)
        return out


class Phi4Text(Phi3):
    """Phi-3's layers."""

    kv_heads = 8


class Phi4Media(Media):
    """What stands beside the token embeddings."""

    tower, projector = "image_embed.img_processor", "image_embed.img_projection_up"
    below = "model.embed_tokens_extend."

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        extended = Module()
        extended.image_embed = ImageEmbedding(outer.nested("vision_config") or Config({}), root.s.hidden)
        extended.audio_embed = SoundEmbedding(outer.nested("audio_config") or Config({}), root.s.hidden)
        self._embed, self._sound = extended.image_embed, extended.audio_embed
        self.join([("embed_tokens_extend", extended)])

    def join(self, parts: Sequence[tuple[str, Module]]) -> None:
        """Into the language model itself."""
        for name, part in parts:
            setattr(self.root.inner, name, part)
        self.root.media = self
        self.root.buffer_numbers += 2 * self._sound.encoder.values  # mean and deviation of sound

    @property
    def towers(self) -> tuple[str, ...]:
        """For pictures and for sound."""
        return (self.tower, "audio_embed.encoder")

    @property
    def projectors(self) -> tuple[str, ...]:
        """Two layers for pictures, four for sound."""
        sound = (f"audio_embed.{way}_proj_for_{kind}" for kind in ("speech", "vision_speech") for way in ("up", "down"))
        return (self.projector, "image_embed.img_projection_down", *sound)

    def parameters(self) -> list[Parameter]:
        """With the vectors between and behind rows."""
        e = self._embed
        return [*super().parameters(), e.global_img_feature_extensor, e.sub_img_feature_extensor]

    def found(self, recipe: Recipe) -> Cut:
        """How a picture is cut."""
        if recipe.image_size is None:
            raise missing_size("500x700")
        return cut(*recipe.image_size)

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """Crops and the whole picture."""
        if not recipe.images:
            return None
        found, tower = self.found(recipe), self._embed.img_processor
        crops = recipe.images * (1 + found.down * found.across)
        return Pictures(crops * tower.values, crops * tower.tokens, recipe.images * found.tokens)

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Which patches are there, and how large the pictures are."""
        found = self.found(recipe)
        patches = recipe.images * (1 + found.down * found.across) * self._embed.img_processor.tokens
        return [("which patches are there", BATCH * (patches * 4)), ("sizes of pictures", BATCH * (recipe.images * 16))]

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """The pictures' tokens into a copy of the embeddings."""
        recipe, found = call.recipe, self.found(call.recipe)
        pixels = Tensor(None, BATCH * pictures.values, given_dtype(recipe), pictures.values)  # booked with the batch
        own = replace(call.of_length(BATCH * recipe.images), checkpointing=call.checkpointing)
        kinds = [t.new(TOKENS, "bool", 1, "places of media") for _ in range(2)]
        rows = self._embed(t, pixels, own, recipe.images, found, f"{self.below}{self.tower}")
        rows = ops.cast(t, rows, hidden.dtype, "pictures: tokens in the embeddings' dtype")
        places = t.new(BATCH * (pictures.tokens * 2), "int64", 1, "places of media")
        out = put_into_copy(t, hidden, places, rows, "embeddings with pictures")
        t.end(*kinds)
        return out

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """What is for sound, and what stands behind the layer that is read."""
        if self.pictures(recipe) is None:
            return self.parameters()
        behind = [p for part in self._embed.img_processor.unread for p in part.all_parameters()]
        return [*behind, *self._sound.all_parameters()]

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """Nothing is heard."""
        return 0.0 if name.startswith(f"{self.below}audio_embed.") else super().uses_per_token(name, recipe)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """And that sound is not modelled."""
        return [*super().assumptions(recipe), SILENT]

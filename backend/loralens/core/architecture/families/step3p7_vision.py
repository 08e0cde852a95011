"""Step-3.7's tower: pictures of one size and crops of them, turned by rows and columns, made four times as narrow by convolutions.

Source: transformers 5.23, models/step3p7/{modeling,image_processing,processing}_step3p7.py (pictures of 728 pixels on a side, crops of
504, at most 3,024 pixels on the longest: its defaults).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import known
from loralens.core.architecture.blocks import Attention, LayerNorm, PlainMLP
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.families.qwen_vision import VisionTables, rotate_vision
from loralens.core.architecture.media import Media, Pictures, missing_size
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.rows import like
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.selecting import interpolated
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

WHOLE: Final = 728  # pixels on a side of a picture
CROP: Final = 504  # of a crop
LONGEST: Final = 3_024


def crops(height: int, width: int) -> int:
    """How many crops a picture has beside itself.

    Source: models/step3p7/image_processing_step3p7.py, `_plan_patches`.
    """
    if min(height, width) < 32 and max(height, width) > 4 * min(height, width):
        height = width = max(height, width)
    if max(height, width) > LONGEST:
        scale = LONGEST / max(height, width)
        height, width = int(height * scale), int(width * scale)
    short, long = sorted((height, width))
    if long <= WHOLE:
        window = short if long / short > 1.5 else 0
    else:
        window = min(short, CROP) if long / short > 4 else CROP
    if not window:
        return 0

    def along(side: int) -> int:
        return max(1, side // window + (side % window > 0.2 * window)) if side >= window else 1

    return along(height) * along(width)


class StepAttention(Module):
    """A matrix each for query, key and value; every picture sees itself alone."""

    def __init__(self, hidden: int, heads: int) -> None:
        for name, label in (("k", "key"), ("v", "value"), ("q", "query")):
            setattr(self, f"{name}_proj", Linear(hidden, hidden, True, name=f"attention {label}"))
        self.out_proj = Linear(hidden, hidden, True, name="attention output projection")
        self._heads = heads

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        hidden = self.out_proj.in_features
        width = hidden // self._heads
        q, k, v = self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)
        q, k = rotate_vision(t, q, k, call.shared["rotary"], width)
        kernel = Attention(self._heads, self._heads, width, width, call.attention, causal=False, keys=ONE * call.beside)
        return self.out_proj(t, kernel(t, q, k, v).view(hidden))


class StepVisionLayer(Module):
    """Pre-norm attention and MLP, each scaled by a learned vector."""

    def __init__(self, hidden: int, wide: int, heads: int, act: str) -> None:
        self.self_attn = StepAttention(hidden, heads)
        self.mlp = PlainMLP(hidden, wide, ("fc1", "fc2"), act)
        self.layernorm_before, self.layernorm_after = LayerNorm(hidden), LayerNorm(hidden)
        self.lambda_1, self.lambda_2 = Parameter((hidden,)), Parameter((hidden,))

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.layernorm_before(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = ops.mul(t, hidden, t.parameter(self.lambda_1), "attention result, scaled")
        hidden = ops.add(t, hidden, residual, "residual stream after attention")
        residual = hidden
        hidden = self.layernorm_after(t, hidden)
        hidden = self.mlp(t, hidden)
        hidden = ops.mul(t, hidden, t.parameter(self.lambda_2), "mlp result, scaled")
        return ops.add(t, hidden, residual, "residual stream after the layer")


class StepPatches(Module):
    """A vector for each patch, and its position, sampled from a table where a picture has other sides."""

    def __init__(self, v: Config, hidden: int) -> None:
        self.patch = v.integer("patch_size", default=14, high=65_536)
        self.side = v.integer("image_size", default=728, high=65_536) // self.patch
        self.channels = v.integer("num_channels", default=3)
        self.patch_embedding = Convolution(
            self.channels, hidden, self.patch, self.patch, name="patch embeddings", bias=False
        )
        self.position_embedding = Embedding(self.side**2, hidden)

    def forward(self, t: Tape, pixels: Tensor, images: Size, side: int, several: bool) -> Tensor:
        """Shapes: (pictures * values) to (pictures * side ** 2, hidden)."""
        pixels = ops.cast(t, pixels, self.patch_embedding.weight.dtype, "pictures in the weights' dtype")
        hidden = self.patch_embedding(t, pixels, images * side**2)
        places = t.parameter(self.position_embedding.weight).view()
        if side != self.side:
            places = interpolated(t, places, ONE * (side**2 * self.position_embedding.width), "positions, sampled")
        places = ops.broadcast(t, places, hidden.numel, "position embeddings", summed=several)
        return ops.add(t, hidden, places, "patches in their places")


class StepTower(Module):
    """The tower."""

    def __init__(self, v: Config) -> None:
        hidden = v.integer("width", "hidden_size", default=1536)
        heads = v.integer("heads", "num_attention_heads", default=16)
        v.divides("num_attention_heads", hidden, heads)
        wide = int(hidden * v.number("mlp_ratio", 8960 / 1536, 0, 1_024))
        depth = v.integer("layers", "num_hidden_layers", default=47, high=MAX_LAYERS)
        act = known(v.text("hidden_act", "quick_gelu"), "config.vision_config.hidden_act")
        if v.number("attention_dropout", 0.0, 0, 1):
            raise UnsupportedArchitecture(
                "dropout in the tower's attention is not modelled", field="config.vision_config.attention_dropout"
            )
        self.embeddings = StepPatches(v, hidden)
        self.pre_layernorm = LayerNorm(hidden)
        self.layers = Stack(lambda _: StepVisionLayer(hidden, wide, heads, act), [None] * depth)
        self.downsampler1 = Convolution(hidden, 2 * hidden, 3, 3, name="patches, halved")
        self.downsampler2 = Convolution(2 * hidden, 4 * hidden, 3, 3, name="patches, halved again")
        self.hidden, self.head = hidden, hidden // heads

    def sides(self, pixels: int) -> tuple[int, int]:
        """Of a picture of so many pixels on a side: patches and tokens on a side."""
        patches = pixels // self.embeddings.patch
        return patches, ((patches + 1) // 2 + 1) // 2

    def forward(self, t: Tape, call: Call, images: Size, pixels: int, name: str, several: bool) -> Tensor:
        """Shapes: (pictures * values) to (pictures * tokens, 4 * hidden)."""
        side, tokens = self.sides(pixels)
        hidden = walk_stack(
            t,
            name,
            self.layers.layers,
            self._embedded(t, call, images, pixels, several),
            call,
            checkpointing=call.checkpointing,
            last_apart=True,  # it runs twice, and gradients of its weights' 16-bit copies wait for the other run
        )
        hidden = self.downsampler1(t, hidden, images * ((side + 1) // 2) ** 2)
        return self.downsampler2(t, hidden, images * tokens**2)

    def _embedded(self, t: Tape, call: Call, images: Size, pixels: int, several: bool) -> Tensor:
        side, values = self.sides(pixels)[0], self.embeddings.channels * pixels**2
        given = Tensor(None, images * values, given_dtype(call.recipe), values)  # booked with the batch
        hidden = self.embeddings(t, given, images, side, several)
        hidden = self.pre_layernorm(t, hidden)
        t.local(t.new(ONE * (side**2 * 2), "int64", 2, "vision positions"))
        call.shared["rotary"] = VisionTables(self.head).made(t, ONE * side**2)
        call.beside = side**2
        return hidden


class StepMedia(Media):
    """Tower and projector: pictures first, then the crops of all of them."""

    tower, projector = "vision_model", "multi_modal_projector"
    own_positions = False

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        self._tower = StepTower(outer.nested("vision_config") or Config({}))
        bias = outer.flag("projector_bias", False)
        self._projector = Linear(4 * self._tower.hidden, root.s.hidden, bias, name="projector")
        self.join([(self.tower, self._tower), (self.projector, self._projector)])

    def _places(self, names: Iterable[str]) -> tuple[str, ...]:
        """The projector is one layer, with nothing below it."""
        return tuple(f"{self.below}{name}{'' if name == self.projector else '.'}" for name in names)

    def buffer_bytes(self) -> int:
        """Inverse frequencies and their copy, and the numbers of places."""
        places: int = self._tower.embeddings.side**2
        return self._tower.head // 4 * 4 * 2 + places * 8

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """Pictures and crops."""
        if not recipe.images:
            return None
        if recipe.image_size is None:
            raise missing_size()
        several = crops(*recipe.image_size)
        (side, token), (of_crop, small) = self._tower.sides(WHOLE), self._tower.sides(CROP)
        values = self._tower.embeddings.channels * (WHOLE**2 + several * CROP**2)
        rows, tokens = side**2 + several * of_crop**2, token**2 + several * small**2
        return Pictures(recipe.images * values, recipe.images * rows, recipe.images * tokens)

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """The convolutions behind the layers work on four places for each token, and on one."""
        found = self.pictures(recipe)
        if found is None or ".downsampler" not in name:
            return super().uses_per_token(name, recipe)
        return found.tokens * (4 if name.endswith("1") else 1) / recipe.sequence_length

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Tokens of each picture behind those of its crops."""
        first = t.layers_walked
        found = [self._projected(t, call, WHOLE, call.recipe.images)]
        assert call.recipe.image_size is not None
        beside = crops(*call.recipe.image_size)
        if beside:
            t.layers_walked = first  # the same layers, whose gradients add up
            found.append(self._projected(t, call, CROP, call.recipe.images * beside))
        tokens = _by_picture(t, found, several=self._several(t, call.recipe.images))
        found.clear()
        self.returned = [Tensor(tokens.storage, tokens.numel, tokens.dtype, tokens.width)]
        call.held.append(tokens)
        rows = ops.copy(t, tokens, "pictures: tokens of all, joined")
        rows = ops.cast(t, rows, hidden.dtype, "pictures: tokens in the embeddings' dtype")
        mask = t.new(TOKENS, "bool", 1, "places of media")
        call.held += [rows, mask]
        return masked_scatter(t, hidden, mask, rows, "embeddings with pictures")

    def _projected(self, t: Tape, call: Call, pixels: int, images: int) -> Tensor:
        own = replace(call.of_length(ONE * self._tower.sides(pixels)[0] ** 2), checkpointing=call.checkpointing)
        name = f"{self.below}{self.tower}.layers"
        states = self._tower(t, own, BATCH * images, pixels, name, self._several(t, images))
        if pixels == WHOLE:
            call.held.append(states)
        return self._projector(t, states)

    @staticmethod
    def _several(t: Tape, images: int) -> bool:
        return images > 1 or t.validity.exceeds("micro_batch_size", 1)


def _by_picture(t: Tape, found: list[Tensor], *, several: bool) -> Tensor:
    """Each picture's tokens behind those of its crops: a copy where there are crops, else views.

    Backward writes each picture's part into zeros as large as those of all, and adds these up.
    """
    label = "pictures: tokens of each"
    sizes = [(x.numel, x.dtype, x.width) for x in found]
    numel = found[0].numel if len(found) == 1 else found[0].numel + found[1].numel
    if len(found) == 1:
        out = Tensor(found[0].storage, numel, found[0].dtype, found[0].width)
    else:
        out = t.new(numel, found[0].dtype, found[0].width, label)

    def apply(g: Tensor) -> list[Tensor]:
        sums = [like(t, *size, f"gradient: {label}") for size in sizes]
        if several:
            t.end(like(t, *sizes[0], f"gradient: {label}, one more"))
        return sums

    t.record(label, [out], found, [], apply)
    return out

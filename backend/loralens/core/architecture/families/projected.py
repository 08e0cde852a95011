"""Towers behind a projector: pictures of one size, a row of patches each, whose projections take placeholders' places.

Source: transformers 5.23, models/{gemma3,llava,paligemma}/modeling_*.py and their image processors; Yi-VL's projector:
hiyouga/LLaMA-Factory, src/llamafactory/model/model_utils/visual.py.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import GemmaRMSNorm, LayerNorm
from loralens.core.architecture.config import Config
from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.families.encoder_towers import EncoderTower
from loralens.core.architecture.families.qwen_vision import joined, split_up
from loralens.core.architecture.media import FIXED_SIZE, Media, Pictures
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.rows import like
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.size import BATCH, TOKENS, Size
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe

YI = "Yi-VL: its projector norms the result of each layer, as LLaMA-Factory puts it in place of transformers' own"
TOWERS = {"siglip_vision_model": False, "clip_vision_model": True}  # the kind, and whether it is CLIP's


class Projected(Media):
    """A tower of pictures of one size, and a projector."""

    tower = "vision_tower"
    projector = "multi_modal_projector"
    usual = "siglip_vision_model"  # the tower of a config that does not name one

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """SigLIP and CLIP are."""
        v = outer.nested("vision_config")
        return v is not None and v.text("model_type", cls.usual) in TOWERS

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        self._vision = self.seen(outer, outer.nested("vision_config") or Config({}))
        self._projector = self.made(outer, self._vision.hidden, root.s.hidden)
        self.join([(self.tower, self._vision), (self.projector, self._projector)])

    def seen(self, outer: Config, v: Config) -> Module:
        """The tower."""
        clip = TOWERS[v.text("model_type", self.usual)]
        return EncoderTower(v, clip=clip, feature_layer=self.feature_layer(outer))

    def feature_layer(self, outer: Config) -> int | None:
        """The layer whose states are read; None: the last, behind its norm."""
        return None

    @abstractmethod
    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """The projector, from the tower's to the language model's width."""

    @abstractmethod
    def tokens(self) -> int:
        """Places that one tile takes."""

    def tiles(self, recipe: Recipe) -> int:
        """Pieces of the tower's own size that the processor makes of one picture."""
        return 1

    def buffer_bytes(self) -> int:
        """Numbers of the patches' places."""
        return self._vision.tokens * 8

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """All are resized to the tower's own size, or cut into tiles of it."""
        if not recipe.images:
            return None
        tiles = recipe.images * self.tiles(recipe)
        return Pictures(*(tiles * count for count in (self._vision.values, self._vision.tokens, self.tokens())))

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Tower, projector, exchange."""
        tiles = call.recipe.images * self.tiles(call.recipe)
        several = tiles > 1 or call.validity.exceeds("micro_batch_size", 1)
        pixels = Tensor(
            None, BATCH * pictures.values, given_dtype(call.recipe), pictures.values
        )  # booked with the batch
        own = replace(call.of_length(BATCH * tiles), checkpointing=call.checkpointing)
        rows = self.features(t, pixels, own, BATCH * tiles, several, call.held)
        return self.exchanged(t, hidden, call, rows)

    def exchanged(self, t: Tape, hidden: Tensor, call: Call, rows: Tensor) -> Tensor:
        """The pictures' tokens, which the model also returns, in their places."""
        return exchanged(self, t, hidden, call, rows)

    @abstractmethod
    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """The pictures' tokens; what else the model's forward holds to its end is added to `held`."""

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """And what comes behind the layer that is read."""
        return super().unreached(recipe) or [p for part in self._vision.unread for p in part.all_parameters()]


def exchanged(media: Media, t: Tape, hidden: Tensor, call: Call, rows: Tensor) -> Tensor:
    """The pictures' tokens, which the model also returns, in their places."""
    rows = ops.cast(t, rows, hidden.dtype, "pictures: tokens in the embeddings' dtype")
    mask = t.new(TOKENS, "bool", 1, "places of media")
    call.held.append(mask)
    media.returned = [Tensor(rows.storage, rows.numel, rows.dtype, rows.width)]
    return masked_scatter(t, hidden, mask, rows, "embeddings with pictures")


class Gemma3Projector(Module):
    """Mean of neighbouring patches, a norm, and one matrix."""

    multiplies = True

    def __init__(self, inputs: int, hidden: int, tokens: int) -> None:
        self.mm_input_projection_weight = Parameter((inputs, hidden))
        self.mm_soft_emb_norm = GemmaRMSNorm(inputs)
        self._tower, self._tokens, self._hidden = inputs, tokens, hidden

    def forward(self, t: Tape, x: Tensor, images: Size) -> Tensor:
        """Shapes: (pictures * patches, tower) to (pictures * tokens, hidden)."""
        laid = t.local(ops.copy(t, x, "tower's states, by value"))
        pooled = t.local(average(t, laid, images * (self._tokens * self._tower)))
        normed = t.local(self.mm_soft_emb_norm(t, pooled))
        out = ops.linear(t, normed, self.mm_input_projection_weight, "projector")
        return ops.cast(t, out, x.dtype, "projector's result, cast back")


def average(t: Tape, x: Tensor, numel: Size) -> Tensor:
    """Average pooling, which keeps its input."""
    out = t.new(numel, x.dtype, x.width, "tower's states, averaged")
    size = (x.numel, x.dtype, x.width)
    t.record(
        "average of patches",
        [out],
        [x],
        derivatives.AVERAGE.kept(self=x),
        lambda g: like(t, *size, "gradient: average"),
    )
    return out


class Gemma3Media(Projected):
    """Gemma 3: every picture is one of the tower's size and 256 tokens."""

    words: tuple[str, ...] = FIXED_SIZE

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """The average pools to so many tokens."""
        self._tokens = int(outer.integer("mm_tokens_per_image", default=256, high=2**20) ** 0.5) ** 2
        return Gemma3Projector(inputs, hidden, self._tokens)

    def tokens(self) -> int:
        """The config's."""
        return self._tokens

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """A kind for every token."""
        return [("kinds of tokens", TOKENS * 8)]

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """Of the last layer, behind its norm."""
        (last,) = self._vision(t, pixels, call, images, several)
        held.append(last)
        out: Tensor = self._projector(t, last, images)
        return out


class PaliGemmaMedia(Projected):
    """PaliGemma: every patch is a token behind one layer."""

    words: tuple[str, ...] = FIXED_SIZE

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """To the projection's own width, which is the language model's."""
        projector = Module()
        projector.linear = Linear(inputs, outer.integer("projection_dim", default=2048), True, name="projector")
        return projector

    def tokens(self) -> int:
        """A patch each."""
        found: int = self._vision.tokens
        return found

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """A kind for every token."""
        return [("kinds of tokens", TOKENS * 8)]

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """Of the last layer, behind its norm."""
        (last,) = self._vision(t, pixels, call, images, several)
        held.append(last)
        out: Tensor = self._projector.linear(t, last)
        return out


class LlavaProjector(Module):
    """Two layers."""

    def __init__(self, inputs: int, hidden: int, act: str, bias: bool) -> None:
        self.linear_1 = Linear(inputs, hidden, bias, name="projector: first")
        self.linear_2 = Linear(hidden, hidden, bias, name="projector: second")
        self._act = act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows, hidden)."""
        x = self.linear_1(t, x)
        x = activation(t, x, self._act, "projector: activated")
        x = self.linear_2(t, x)
        return x


class YiProjector(Module):
    """Yi-VL's: a norm behind each of two layers, by the names of layers; its result is as narrow as autocast or its weights.

    Source: hiyouga/LLaMA-Factory, src/llamafactory/model/model_utils/visual.py (`LlavaMultiModalProjectorForYiVL`), which takes the
    place of transformers' own where the config says `is_yi_vl_derived_model`.
    """

    def __init__(self, inputs: int, hidden: int, act: str) -> None:
        self.linear_1, self.linear_2 = Linear(inputs, hidden, True, name="projector: first"), LayerNorm(hidden)
        self.linear_3, self.linear_4 = Linear(hidden, hidden, True, name="projector: second"), LayerNorm(hidden)
        self._act = act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows, hidden)."""
        x = self.linear_1(t, x)
        x = self.linear_2(t, x)
        x = activation(t, x, self._act, "projector: activated")
        x = self.linear_3(t, x)
        x = self.linear_4(t, x)
        return ops.cast(t, x, t.autocast or self.linear_1.weight.dtype, "projector's result, cast")


class LlavaMedia(Projected):
    """LLaVA: the states of one layer, as a rule the last but one, without the first token."""

    words: tuple[str, ...] = FIXED_SIZE
    usual = "clip_vision_model"

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """One layer's states are read."""
        layer = outer.entries.get("vision_feature_layer", -2)
        return super().knows(outer) and isinstance(layer, int) and not isinstance(layer, bool)

    def feature_layer(self, outer: Config) -> int | None:
        """The config's."""
        layer: int = outer.entries.get("vision_feature_layer", -2)
        return layer

    def made(self, outer: Config, inputs: int, hidden: int) -> Module:
        """With or without the first token."""
        self._cut = outer.text("vision_feature_select_strategy", "default") == "default"
        act = known(outer.text("projector_hidden_act", "gelu"), "config.projector_hidden_act")
        if outer.flag("is_yi_vl_derived_model", False):
            self.origin = YI
            return YiProjector(inputs, hidden, act)
        return LlavaProjector(inputs, hidden, act, outer.flag("multimodal_projector_bias", True))

    def tokens(self) -> int:
        """A patch each."""
        found: int = self._vision.tokens - self._cut
        return found

    def features(self, t: Tape, pixels: Tensor, call: Call, images: Size, several: bool, held: list[Tensor]) -> Tensor:
        """The chosen layer's, without the first token."""
        taken, *rest = self._vision(t, pixels, call, images, several)
        held += [taken, *rest]
        tokens: Tensor = self._projector(t, self.without_first(t, taken, images, several) if self._cut else taken)
        split = split_up(t, tokens)
        held.append(split)
        return joined(t, split, "pictures: tokens of all, joined")

    def without_first(self, t: Tape, taken: Tensor, images: Size, several: bool) -> Tensor:
        """A picture's patches alone; a slice of every picture, which a product needs in one piece."""
        numel = images * (self.tokens() * self._vision.hidden)
        taken = ops.cut(t, taken, "tower's states without the first token", numel=numel)
        return ops.copy(t, taken, "tower's states in one piece") if several else taken

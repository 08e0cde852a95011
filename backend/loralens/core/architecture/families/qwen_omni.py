"""Qwen2.5-Omni and Qwen3-Omni's thinker: the towers for pictures of Qwen2.5-VL and Qwen3-VL, one for sound, and their language models.

Source: transformers 5.23, models/{qwen2_5_omni,qwen3_omni_moe}/modeling_*.py (`…ThinkerForConditionalGeneration`). A picture's limits are
those of the models that see alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import Config
from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.families.mixtral import Qwen3Moe
from loralens.core.architecture.families.omni_sound import (
    FRAMES,
    LONGEST,
    Heard,
    OmniSoundTower,
    Qwen3OmniSoundTower,
    Qwen25OmniSoundTower,
)
from loralens.core.architecture.families.qwen2_5_vl import Qwen25VisionTransformer, Qwen25VL, VisionBlock
from loralens.core.architecture.families.qwen3_vl import Qwen3VisionTransformer, Qwen3VL
from loralens.core.architecture.families.qwen_vision import PatchMerger, QwenMedia, SplitVisionAttention
from loralens.core.architecture.families.qwen_vl import Deepened, Qwen2VLText
from loralens.core.architecture.media import TEXT_ALONE, Pictures
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.tape import ops
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.size import BATCH, ONE, TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.architecture.module import Module
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity

CUT: Final = f"sound beyond {LONGEST} s is cut off by the feature extractor"


class Qwen25OmniText(Qwen2VLText):
    """Qwen2.5-VL's."""

    kv_heads = 4


class Qwen3OmniText(Deepened, Qwen3Moe):
    """Qwen3's experts."""


class Hearing(QwenMedia):
    """A tower for pictures and one for sound."""

    words = (*QwenMedia.words, "audio_seconds")

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """With both."""
        return super().knows(outer) and outer.nested("audio_config") is not None

    @property
    def towers(self) -> tuple[str, ...]:
        """Both."""
        return (self.tower, "audio_tower")

    def behind(self, outer: Config) -> list[tuple[str, Module]]:
        """The tower for sound."""
        self._sound = self.hears(outer.nested("audio_config") or Config({}))
        return [("audio_tower", self._sound)]

    def hears(self, a: Config) -> OmniSoundTower:
        """The tower for sound, from its config."""
        raise NotImplementedError

    def buffer_bytes(self) -> int:
        """And sinusoids."""
        return super().buffer_bytes() + self._sound.table

    def heard(self, recipe: Recipe) -> Heard | None:
        """A sample's sound; None without any."""
        frames = round(min(recipe.audio_seconds, LONGEST) * FRAMES)
        return self._sound.heard(frames) if frames else None

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """With the sound's frames, places and tokens."""
        seen, heard = super().pictures(recipe), self.heard(recipe)
        if heard is None:
            return seen
        seen = seen or Pictures(0, 0, 0)
        return replace(
            seen,
            values=seen.values + LONGEST * FRAMES * self._sound.bins,
            rows=seen.rows + heard.places,
            tokens=seen.tokens + heard.tokens,
        )

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Pictures and sound apart."""
        heard, bins = self.heard(recipe), self._sound.bins
        given = super().inputs(recipe, validity)
        if heard is None:
            return given
        numbers = BATCH * (LONGEST * FRAMES * bins * ITEM_BYTES[given_dtype(recipe)])
        (name, size), *beside = given
        sound = [("sound", numbers), ("which frames are there", BATCH * (LONGEST * FRAMES * 8))]
        return [*sound, *([(name, size - numbers), *beside] if recipe.images or recipe.video_frames else [])]

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """Nothing: places are found by the tokens."""
        return []

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Sound first."""
        heard = self.heard(call.recipe)
        if heard is not None:
            hidden = self._listened(t, hidden, call, heard)
        return super().run(t, hidden, call, pictures)

    def _listened(self, t: Tape, hidden: Tensor, call: Call, heard: Heard) -> Tensor:
        own = replace(call.of_length(ONE * heard.places), checkpointing=call.checkpointing)
        tokens = self._sound(t, own, heard, f"{self.below}audio_tower.layers")
        tokens = ops.cast(t, tokens, hidden.dtype, "sound: tokens in the embeddings' dtype")
        mask = t.new(TOKENS, "bool", 1, "places of media")
        call.held += [tokens, mask]
        return masked_scatter(t, hidden, mask, tokens, "embeddings with sound")

    def unreached(self, recipe: Recipe) -> Iterable[Parameter]:
        """Of a tower that nothing is given to, and what no sound reads."""
        heard = self.heard(recipe) is not None
        found = list(self._sound.unheard() if heard else self._sound.all_parameters())
        return found + ([] if self.grids(recipe) else list(self._visual.all_parameters()))

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """Rows of the tower that it stands in."""
        sounds = name.startswith(f"{self.below}audio_tower.")
        heard = self.heard(recipe)
        seen = QwenMedia.pictures(self, recipe)
        rows = (heard.places if heard else 0) if sounds else (seen.rows if seen else 0)
        return rows / recipe.sequence_length

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What is counted of both."""
        heard, seen, found = self.heard(recipe), QwenMedia.pictures(self, recipe), self.pictures(recipe)
        said = [TEXT_ALONE] if found is None else self.room(recipe, found)
        if heard is not None:
            said.append(
                f"{min(recipe.audio_seconds, LONGEST):g} s of sound per sample: {heard.places:,} places in the tower, "
                f"{heard.tokens:,} tokens of the sequence"
            )
        if recipe.audio_seconds > LONGEST:
            said.append(CUT)
        return said + ([] if seen is None else [self.shown(recipe, seen)])


class Qwen25OmniBlock(VisionBlock):
    """A matrix each for query, key and value."""

    def __init__(self, hidden: int, intermediate: int, heads: int, act: str, *, whole: bool) -> None:
        super().__init__(hidden, intermediate, heads, act, whole=whole)
        self.attn = SplitVisionAttention(hidden, heads, suffix="")


class Qwen25OmniVisionTransformer(Qwen25VisionTransformer):
    """Qwen2.5-VL's tower of these layers."""

    def block(self, hidden: int, intermediate: int, heads: int, act: str, *, whole: bool) -> Module:
        """A layer."""
        return Qwen25OmniBlock(hidden, intermediate, heads, act, whole=whole)


class Qwen25OmniMedia(Hearing, Qwen25VL):
    """Qwen2.5-Omni."""

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return Qwen25OmniVisionTransformer(v)

    def hears(self, a: Config) -> OmniSoundTower:
        """From the audio config."""
        return Qwen25OmniSoundTower(a)


class OmniVisionTransformer(Qwen3VisionTransformer):
    """Qwen3-VL's tower, whose mergers have other names."""

    mergers = "merger_list"

    def merging(self, hidden: int, merged: int, out: int, *, late_norm: bool) -> Module:
        """One of the mergers."""
        return PatchMerger(LayerNorm(merged if late_norm else hidden), merged, out, late_norm=late_norm)


class Qwen3OmniMedia(Hearing, Qwen3VL):
    """Qwen3-Omni."""

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        root.default_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
        root.refuses_all_linear = "PEFT refuses all-linear in this family: the names that it shortens the list to also mean layers of the tower for sound"

    def made(self, v: Config) -> Module:
        """From the vision config."""
        return OmniVisionTransformer(v)

    def hears(self, a: Config) -> OmniSoundTower:
        """From the audio config."""
        return Qwen3OmniSoundTower(a)

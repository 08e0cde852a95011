"""Qwen2-Audio: Whisper's encoder over half a minute of sound, means of two neighbouring states, and one layer.

Source: transformers 5.23, models/qwen2_audio/{modeling,processing}_qwen2_audio.py (`Qwen2AudioForConditionalGeneration`), tokens expanded
by the processor.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.families.projected import average
from loralens.core.architecture.families.voxtral import CLIP_SECONDS, NO_SOUND, VoxtralEncoder, VoxtralMedia
from loralens.core.architecture.media import Media, Pictures
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import ops
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.config import Config
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity

FRAMES: Final = 100  # mel frames of a second
CUT: Final = f"sound beyond {CLIP_SECONDS} s is cut off by the feature extractor"


class Qwen2AudioEncoder(VoxtralEncoder):
    """Whisper's, pooled."""

    wide_positions = False

    def pooled(self, t: Tape, hidden: Tensor) -> Tensor:
        """Means of two states."""
        return average(t, hidden, hidden.numel // 2)


class Qwen2AudioMedia(VoxtralMedia):
    """Tower and projector; a sample has one sound."""

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        Media.__init__(self, root, outer)
        root.upcasts_logits = False  # a loss of its own, on the logits as they are
        a = outer.nested("audio_config")
        assert a is not None
        self._encoder = Qwen2AudioEncoder(a.over({}, {"d_model": 1280}))
        self._projector = Module()
        self._projector.linear = Linear(self._encoder.hidden, root.s.hidden, True, name="projector")
        self.join([(self.tower, self._encoder), (self.projector, self._projector)])

    def heard(self, recipe: Recipe) -> int:
        """Places of the tower that hold sound."""
        frames = round(min(recipe.audio_seconds, CLIP_SECONDS) * FRAMES)
        return (frames - 1) // 2 + 1

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """Half a minute for the tower, and the tokens of what holds sound."""
        if not recipe.audio_seconds:
            return None
        places = self._encoder.places
        return Pictures(2 * places * self._encoder.bins, places, (self.heard(recipe) - 2) // 2 + 1)

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """And which frames are there."""
        given = super().inputs(recipe, validity)
        return [*given, ("which frames are there", BATCH * (2 * self._encoder.places * 8))] if given else []

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Encoder and projector on everything, exchange of what holds sound."""
        places, width = self._encoder.places, hidden.width
        assert isinstance(width, int)
        own = replace(call.of_length(ONE * places), checkpointing=call.checkpointing)
        if self.heard(call.recipe) < places:
            rows = BATCH * places
            kind = "bool" if call.attention == "sdpa" else hidden.dtype
            mask = own.masks["full"] = t.new(rows * places, kind, places, "attention mask of the sound")
            call.held.append(mask)
        states = self._encoder.clips(t, own, BATCH)
        tokens = self._projector.linear(t, states)
        there = t.new(BATCH * (places // 2), "bool", 1, "which tokens are there")
        kept = ops.indexed(t, tokens, there, BATCH * (pictures.tokens * width), width, "tokens that are there")
        rows_of = ops.cast(t, kept, hidden.dtype, "sound: tokens in the embeddings' dtype")
        places_of = t.new(TOKENS, "bool", 1, "places of media")
        call.held += [states, there, kept, rows_of, places_of]
        return masked_scatter(t, hidden, places_of, rows_of, "embeddings with sound")

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What is counted of the sound."""
        found = self.pictures(recipe)
        if found is None:
            return [NO_SOUND]
        seconds = min(recipe.audio_seconds, CLIP_SECONDS)
        said = [
            f"{seconds:g} s of sound per sample: {found.rows:,} places in the tower, {found.tokens:,} tokens of the sequence"
        ]
        return said + ([CUT] if recipe.audio_seconds > CLIP_SECONDS else []) + self.room(recipe, found)

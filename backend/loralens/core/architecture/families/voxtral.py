"""Voxtral: Whisper's encoder over clips of half a minute, four of whose states become a token of the language model.

Source: transformers 5.23, models/voxtral/{modeling,processing}_voxtral.py (`VoxtralForConditionalGeneration`): sound is cut into
clips of 30 s and the last one filled up; `from_pretrained` holds `embed_positions` in float32.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import given_dtype
from loralens.core.architecture.families.projected import LlavaProjector
from loralens.core.architecture.families.whisper import WhisperEncoder, WhisperWidths
from loralens.core.architecture.media import NO_ROOM, Media, Pictures
from loralens.core.architecture.module import Module
from loralens.core.architecture.shape import MAX_HEADS
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.scatter import masked_scatter
from loralens.core.tape.size import BATCH, ONE, TOKENS, Size
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.validity import Validity

CLIP_SECONDS: Final = 30  # of WhisperFeatureExtractor (`chunk_length`)
NO_SOUND: Final = (
    "text alone: no sample holds sound, so the audio tower's weights are held and it does not run; audio_seconds=30 counts half a "
    "minute per sample"
)


class VoxtralEncoder(WhisperEncoder):
    """Whisper's, whose positions are added in float32 and the sum cast back."""

    wide_positions = True

    def __init__(self, a: Config) -> None:
        w = WhisperWidths.read(a)
        heads = a.integer("num_attention_heads", "encoder_attention_heads", default=20, high=MAX_HEADS)
        a.divides("num_attention_heads", w.hidden, heads)
        self.bins = a.integer("num_mel_bins", default=128)
        wide = a.integer("intermediate_size", "encoder_ffn_dim", default=5120)
        layers = a.integer("num_hidden_layers", "encoder_layers", default=32, high=MAX_LAYERS)
        super().__init__(w, self.bins, wide, heads, layers)
        if self.wide_positions:
            self.embed_positions.weight.held_in = "float32"
        self.places, self.hidden = w.places, w.hidden

    def clips(self, t: Tape, call: Call, clips: Size) -> Tensor:
        """Shapes: (clips, bins, frames) to (clips * places, hidden)."""
        frames = clips * (2 * self.places)
        sound = Tensor(None, frames * self.bins, given_dtype(call.recipe), self.bins)  # booked with the batch
        sound = ops.cast(t, sound, self.conv1.weight.dtype, "sound in the weights' dtype")
        hidden = self.conv1(t, sound, frames)
        if call.input_gradients:
            t.require_grad(hidden)
        hidden = activation(t, hidden, "gelu", "sound: first activation")
        hidden = self.conv2(t, hidden, clips * self.places)
        embeddings = activation(t, hidden, "gelu", "sound: second activation")
        positions = t.parameter(self.embed_positions.weight)
        hidden = ops.add(t, embeddings, positions, "sound: embeddings")
        if self.wide_positions:
            hidden = ops.cast(t, hidden, embeddings.dtype, "sound: embeddings, cast back")
        hidden = ops.dropout(t, hidden, self._w.dropout, "embeddings: dropout")
        name = "model.audio_tower.layers"
        hidden = walk_stack(t, name, self.layers.layers, hidden, call, checkpointing=call.checkpointing)
        out: Tensor = self.layer_norm(t, self.pooled(t, hidden))
        t.end(sound, embeddings)
        return out

    def pooled(self, t: Tape, hidden: Tensor) -> Tensor:
        """As it is."""
        return hidden


class VoxtralMedia(Media):
    """Tower and projector."""

    tower = "audio_tower"
    projector = "multi_modal_projector"
    words = ("audio_seconds", "freeze_tower")

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """A config with an audio part."""
        return outer.nested("audio_config") is not None

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        a = outer.nested("audio_config") or Config({})
        self._encoder = VoxtralEncoder(a)
        self._joined = a.integer("intermediate_size", "encoder_ffn_dim", default=5120)
        a.divides("intermediate_size", self._encoder.places * self._encoder.hidden, self._joined)
        act = known(outer.text("projector_hidden_act", "gelu"), "config.projector_hidden_act")
        self._projector: Module = LlavaProjector(self._joined, root.s.hidden, act, False)
        self.join([(self.tower, self._encoder), (self.projector, self._projector)])

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """The clips of a sample's sound."""
        if not recipe.audio_seconds:
            return None
        encoder, clips = self._encoder, ceil(recipe.audio_seconds / CLIP_SECONDS)
        rows = clips * encoder.places
        return Pictures(2 * rows * encoder.bins, rows, rows * encoder.hidden // self._joined)

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Mel frames."""
        return [("sound", size) for _, size in super().inputs(recipe, validity)]

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """Encoder, projector, exchange of placeholders."""
        clips = BATCH * (pictures.rows // self._encoder.places)
        own = replace(call.of_length(ONE * self._encoder.places), checkpointing=call.checkpointing)
        states = self._encoder.clips(t, own, clips)
        tokens = self._projector(t, states.view(self._joined))
        self.returned = [Tensor(tokens.storage, tokens.numel, tokens.dtype, tokens.width)]
        rows = ops.cast(t, tokens, hidden.dtype, "sound: tokens in the embeddings' dtype")
        mask = t.new(TOKENS, "bool", 1, "places of media")
        call.held.append(mask)
        return masked_scatter(t, hidden, mask, rows, "embeddings with sound")

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """The first convolution works on twice as many frames."""
        return super().uses_per_token(name, recipe) * (2 if name.endswith("conv1") else 1)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What is counted of the sound."""
        found = self.pictures(recipe)
        if found is None:
            return [NO_SOUND]
        clips = found.rows // self._encoder.places
        said = [
            f"{recipe.audio_seconds:g} s of sound per sample, in clips of {CLIP_SECONDS} s ({clips}): {found.rows:,} places in "
            f"the tower, {found.tokens:,} tokens of the sequence"
        ]
        return said + ([NO_ROOM] if found.tokens > recipe.sequence_length else [])

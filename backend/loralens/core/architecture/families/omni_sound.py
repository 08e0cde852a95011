"""How Qwen's Omni models hear: sound cut into pieces, convolutions on each, layers that see windows of all that is left.

Source: transformers 5.23, models/{qwen2_5_omni,qwen3_omni_moe}/{modeling,processing}_*.py; the published preprocessor_config.json pads
every sample's sound to 300 s.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.families.qwen_vision import SplitVisionAttention
from loralens.core.architecture.families.whisper import WhisperLayer, WhisperWidths
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.shape import MAX_HEADS
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.packed import Pieces
from loralens.core.tape.size import BATCH, ONE

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.tape import Tape

FRAMES: Final = 100  # mel frames of a second
LONGEST: Final = 300  # seconds to which every sample is padded, and cut


@dataclass(frozen=True, slots=True)
class Heard:
    """A sample's sound: mel frames, the pieces they are cut into, and the places that a layer sees together."""

    frames: int
    pieces: tuple[int, ...]  # frames
    windows: tuple[int, ...]  # places
    tokens: int

    @property
    def places(self) -> int:
        """Rows of the layers."""
        return sum(self.windows)

    @property
    def longest(self) -> int:
        """Frames to which each piece is filled up."""
        return max(self.pieces)

    def seen(self) -> Pieces:
        """Every window sees itself alone."""
        pairs = sum(places**2 for places in self.windows)
        return Pieces(ONE * self.windows[0], BATCH * len(self.windows), BATCH * pairs)


def cut(length: int, piece: int) -> tuple[int, ...]:
    """So many in pieces, the last one perhaps shorter."""
    return tuple(min(piece, length - start) for start in range(0, length, piece))


class OmniSoundLayer(WhisperLayer):
    """Whisper's, whose places see a window."""

    def __init__(self, w: WhisperWidths, intermediate: int, heads: int, key_bias: bool) -> None:
        super().__init__(w, intermediate, heads, False)
        self.self_attn = SplitVisionAttention(w.hidden, heads, "out_proj", key_bias=key_bias)

    def _attend(self, t: Tape, hidden: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        residual = hidden
        hidden = self.self_attn_layer_norm(t, hidden)
        hidden = self.self_attn(t, hidden, call, call.beside)
        return ops.add(t, residual, hidden, "residual stream after attention"), None


class OmniSoundTower(Module):
    """What both have: the cut into pieces, the layers."""

    window: int  # half of a piece, in frames
    key_bias: bool

    def __init__(self, a: Config) -> None:
        w = WhisperWidths.read(a.over({"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}))
        heads = a.integer("encoder_attention_heads", "num_attention_heads", default=20, high=MAX_HEADS)
        a.divides("encoder_attention_heads", w.hidden, heads)
        layers = a.integer("encoder_layers", "num_hidden_layers", default=32, high=MAX_LAYERS)
        wide = a.integer("encoder_ffn_dim", "intermediate_size", default=5120)
        self.bins = a.integer("num_mel_bins", default=128)
        self.piece = 2 * a.integer("n_window", default=self.window, high=65_536)
        self.hidden, self.act = w.hidden, w.act
        self.table = w.places * w.hidden * 4  # of sinusoids, in float32
        self.joined(a, w.hidden, a.integer("output_dim", default=3584))
        self.layers = Stack(lambda _: OmniSoundLayer(w, wide, heads, self.key_bias), [None] * layers)
        self.ln_post = LayerNorm(w.hidden)

    @abstractmethod
    def joined(self, a: Config, hidden: int, out: int) -> None:
        """Put in what stands before and behind the layers."""

    @abstractmethod
    def heard(self, frames: int) -> Heard:
        """How so many mel frames are cut."""

    @abstractmethod
    def convolved(self, t: Tape, pieces: Tensor, call: Call, heard: Heard) -> Tensor:
        """Shapes: (pieces, bins, frames) to (pieces * places, hidden)."""

    @abstractmethod
    def finished(self, t: Tape, hidden: Tensor, heard: Heard) -> Tensor:
        """Shapes: (places, hidden) to (tokens, out)."""

    def unheard(self) -> list[Parameter]:
        """Parameters that nothing reads."""
        return []

    def forward(self, t: Tape, call: Call, heard: Heard, name: str) -> Tensor:
        """Shapes: (samples, bins, frames) to (tokens, out)."""
        dtype, bins = given_dtype(call.recipe), self.bins
        there = t.local(t.new(BATCH * (heard.frames * bins), dtype, bins, "sound that is there"))
        pieces = t.new(BATCH * (len(heard.pieces) * heard.longest * bins), there.dtype, bins, "sound in pieces")
        hidden = self.convolved(t, pieces, call, heard)
        hidden = ops.indexed(
            t, hidden, t.local(t.new(BATCH * heard.places, "int64", 1, "places that are there")),
            BATCH * (heard.places * self.hidden), self.hidden, "places that are there",
        )  # fmt: skip
        call.beside = heard.seen()
        hidden = walk_stack(t, name, self.layers.layers, hidden, call, checkpointing=call.checkpointing)
        return self.finished(t, hidden, heard)


class Qwen25OmniSoundTower(OmniSoundTower):
    """Two convolutions; two neighbouring places become a token."""

    window = 100
    key_bias = False

    def joined(self, a: Config, hidden: int, out: int) -> None:
        """Whisper's convolutions, and one layer."""
        self.conv1 = Convolution(self.bins, hidden, 3, name="sound: first convolution")
        self.conv2 = Convolution(hidden, hidden, 3, name="sound: second convolution")
        self.audio_bos_eos_token = Embedding(2, out)
        self.proj = Linear(hidden, out, True, name="projector")

    def unheard(self) -> list[Parameter]:
        """Of tokens for beginning and end."""
        return [self.audio_bos_eos_token.weight]

    def heard(self, frames: int) -> Heard:
        """Every piece is a window."""
        pieces = cut(frames, self.piece)
        windows = tuple((piece - 1) // 2 + 1 for piece in pieces)
        return Heard(frames, pieces, windows, ((frames - 1) // 2 - 1) // 2 + 1)

    def convolved(self, t: Tape, pieces: Tensor, call: Call, heard: Heard) -> Tensor:
        """Positions are added to what is heard."""
        count = BATCH * len(heard.pieces)
        pieces = t.local(ops.cast(t, pieces, self.conv1.weight.dtype, "sound in the weights' dtype"))
        hidden = self.conv1(t, pieces, count * heard.longest)
        if call.input_gradients:
            t.require_grad(hidden)
        hidden = activation(t, hidden, "gelu", "sound: first activation")
        hidden = ops.scale(t, hidden, "sound without what fills pieces up")
        hidden = self.conv2(t, hidden, count * ((heard.longest - 1) // 2 + 1))
        hidden = activation(t, hidden, "gelu", "sound: second activation")
        hidden = t.local(ops.shift(t, hidden, "sound: embeddings"))
        return ops.copy(t, hidden, "sound: embeddings, by place")

    def finished(self, t: Tape, hidden: Tensor, heard: Heard) -> Tensor:
        """Means of two."""
        rows = BATCH * heard.tokens
        index = t.local(t.new(rows, "int64", 1, "first places of tokens"))
        width = self.hidden
        first = ops.indexed(t, hidden, index, rows * width, width, "places of tokens")
        following = t.new(rows, "int64", 1, "second places of tokens")
        second = ops.indexed(t, hidden, following, rows * width, width, "places of tokens")
        both = ops.add(t, first, second, "places of tokens, added")
        t.end(first, second, following)
        hidden = ops.scale(t, both, "means of two places")
        t.end(both)
        hidden = self.ln_post(t, hidden)
        out: Tensor = self.proj(t, hidden)
        return out


class Qwen3OmniSoundTower(OmniSoundTower):
    """Three convolutions over frames and bins; every place is a token."""

    window = 50
    key_bias = True

    def joined(self, a: Config, hidden: int, out: int) -> None:
        """Convolutions with a layer behind them, and two layers at the end."""
        channels = a.integer("downsample_hidden_size", default=480)
        for index, inputs in (("1", 1), ("2", channels), ("3", channels)):
            setattr(self, f"conv2d{index}", Convolution(inputs, channels, 3, 3, name=f"sound: convolution {index}"))
        self._sides = halved(self.bins)
        self.conv_out = Linear(channels * self._sides[-1], hidden, name="sound: after the convolutions")
        self.proj1 = Linear(hidden, hidden, True, name="projector: first")
        self.proj2 = Linear(hidden, out, True, name="projector: second")
        self._at_once = a.integer("n_window_infer", default=800, high=2**20) // self.piece

    def heard(self, frames: int) -> Heard:
        """Some pieces together are a window."""
        pieces = cut(frames, self.piece)
        places = [halved(piece)[-1] for piece in pieces]
        return Heard(frames, pieces, cut(sum(places), max(places) * self._at_once), sum(places))

    def convolved(self, t: Tape, pieces: Tensor, call: Call, heard: Heard) -> Tensor:
        """At most 500 pieces at once, which is more than a sample has."""
        count, times = BATCH * len(heard.pieces), halved(heard.longest)
        hidden = pieces = t.local(ops.cast(t, pieces, self.conv2d1.weight.dtype, "sound in the weights' dtype"))
        for index, (side, long) in enumerate(zip(self._sides, times, strict=True), 1):
            hidden = getattr(self, f"conv2d{index}")(t, hidden, count * (side * long))
            if call.input_gradients and index == 1:
                t.require_grad(hidden)
            hidden = activation(t, hidden, "gelu", f"sound: activation {index}")
        hidden = t.local(ops.copy(t, t.local(hidden), "sound: all pieces"))
        laid = ops.copy(t, hidden, "sound: by place").view(self.conv_out.in_features)
        hidden = self.conv_out(t, laid)
        return t.local(ops.shift(t, hidden, "sound: embeddings"))

    def finished(self, t: Tape, hidden: Tensor, heard: Heard) -> Tensor:
        """Two layers."""
        hidden = self.proj1(t, self.ln_post(t, hidden))
        hidden = activation(t, hidden, self.act, "projector: activated")
        out: Tensor = self.proj2(t, hidden)
        return out


def halved(length: int) -> tuple[int, int, int]:
    """How long something is behind each of three convolutions that skip every other place."""
    first = (length - 1) // 2 + 1
    second = (first - 1) // 2 + 1
    return first, second, (second - 1) // 2 + 1

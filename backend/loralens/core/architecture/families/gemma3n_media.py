"""Gemma 3n whole: MobileNet-V5 for pictures, a tower for sound that is held and does not run, and embedders of both.

Every token goes through both embedders, with a number of their own tables where it is none of theirs.

Source: transformers 5.23, models/gemma3n/{modeling,configuration,processing}_gemma3n.py; pictures of 768 x 768 pixels and 256 tokens
(the published preprocessor_config.json).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.families.gemma3n import Gemma3n
from loralens.core.architecture.families.gemma4_unified import Sounding
from loralens.core.architecture.families.mobilenet_v5 import OUT, SIDE, TOKENS_ACROSS, MobileNetV5, Shown
from loralens.core.architecture.families.per_layer import PowerNorm
from loralens.core.architecture.families.projected import exchanged
from loralens.core.architecture.media import Pictures
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.question.media import NO_TOWER
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import where
from loralens.core.tape.size import BATCH, TOKENS, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.decoder import CausalDecoder
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.tape import Tape

ARCHITECTURE: Final = "mobilenetv5_300m_enc"
UNREACHED: Final = "gradient_checkpointing does not reach the vision tower, which is timm's: where it trains, all that its layers keep is held"


class TwoWayEmbedder(Module):
    """Tokens of a table, or a tower's states, normed and projected."""

    def __init__(self, config: Config, inputs: int, hidden: int) -> None:
        self.embedding = Embedding(config.integer("vocab_size", default=128, high=MAX_VOCABULARY), inputs)
        self.hard_embedding_norm, self.soft_embedding_norm = PowerNorm(inputs), PowerNorm(inputs)
        self.embedding_projection = Linear(inputs, hidden, name="projector")
        self.embedding_post_projection_norm = PowerNorm(hidden, scaled=False)

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, inputs) to (rows, hidden)."""
        return self._projected(t, self.soft_embedding_norm(t, x))

    def looked_up(self, t: Tape, numbers: Tensor) -> Tensor:
        """Shapes: (rows) to (rows, hidden)."""
        own = t.new(numbers.numel, "int64", 1, "tokens of the table")
        found = self.embedding(t, TOKENS, "embeddings of media", own)
        t.end(own)
        return self._projected(t, self.hard_embedding_norm(t, found))

    def _projected(self, t: Tape, normed: Tensor) -> Tensor:
        out: Tensor = self.embedding_post_projection_norm(t, self.embedding_projection(t, normed))
        return out


class SoundStage(Module):
    """A convolution and a norm over what has been heard so far."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.conv = Convolution(inputs, outputs, 3, 3, bias=False)
        self.norm = Module()
        self.norm.weight = Parameter((outputs,))


class ConformerHalf(Module):
    """Two layers between norms."""

    def __init__(self, hidden: int) -> None:
        self.pre_layer_norm, self.post_layer_norm = PowerNorm(hidden), PowerNorm(hidden)
        self.ffw_layer_1 = Linear(hidden, 4 * hidden, name="mlp up")
        self.ffw_layer_2 = Linear(4 * hidden, hidden, name="mlp down")


class ConformerBlock(Module):
    """Attention and a convolution between two halves of a feed-forward layer."""

    def __init__(self, hidden: int, heads: int, kernel: int) -> None:
        self.ffw_layer_start, self.ffw_layer_end = ConformerHalf(hidden), ConformerHalf(hidden)
        self.attention = Module()
        self.attention.pre_attn_norm, self.attention.post_norm = PowerNorm(hidden), PowerNorm(hidden)
        self.attention.attn = attn = Module()
        attn.relative_position_embedding = Module()
        attn.relative_position_embedding.pos_proj = Linear(hidden, hidden, name="attention: positions")
        attn.per_dim_scale = Parameter((hidden // heads,))
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(attn, name, Linear(hidden, hidden, name=f"attention: {name}"))
        self.attention.post = Linear(hidden, hidden, name="attention output projection")
        self.lconv1d = Module()
        self.lconv1d.pre_layer_norm, self.lconv1d.conv_norm = PowerNorm(hidden), PowerNorm(hidden)
        self.lconv1d.linear_start = Linear(hidden, 2 * hidden, name="convolution: before")
        self.lconv1d.depthwise_conv1d = Convolution(1, hidden, kernel, bias=False)
        self.lconv1d.linear_end = Linear(hidden, hidden, name="convolution: after")
        self.norm = PowerNorm(hidden)


class ConformerTower(Module):
    """The tower for sound."""

    def __init__(self, a: Config) -> None:
        hidden, heads = a.integer("hidden_size", default=1536), a.integer("conf_num_attention_heads", default=8)
        a.divides("conf_num_attention_heads", hidden, heads)
        first, second = (a.integers("sscp_conv_channel_size") or [128, 32])[:2]
        bands = a.integer("input_feat_size", default=128) // 4
        kernel = a.integer("conf_conv_kernel_size", default=5, high=65_536)
        self.subsample_conv_projection = stages = Module()
        stages.conv_0, stages.conv_1 = SoundStage(1, first), SoundStage(first, second)
        stages.input_proj_linear = Linear(second * bands, hidden)
        layers = a.integer("conf_num_hidden_layers", default=12, high=MAX_LAYERS)
        self.conformer = Stack(lambda _: ConformerBlock(hidden, heads, kernel), [None] * layers)
        self.hidden = hidden
        chunk = a.integer("conf_attention_chunk_size", default=12, high=65_536)
        left = a.integer("conf_attention_context_left", default=13, high=65_536)
        right = a.integer("conf_attention_context_right", default=0, low=0, high=65_536)
        self.numbers = 6 * layers  # limits and a scale of each, in the weights' dtype
        self.buffer_bytes = layers * (hidden // 2 * 4 + chunk * (chunk + left - 1 + right) + 4)


class Gemma3nMedia(Sounding):
    """Towers and embedders."""

    tower, projector = "vision_tower", "embed_vision"
    sound = ("audio_tower", "embed_audio")

    @classmethod
    def knows(cls, outer: Config) -> bool:
        """The published tower."""
        v = outer.nested("vision_config")
        return v is not None and v.text("architecture", ARCHITECTURE) == ARCHITECTURE and not v.has("model_args")

    def __init__(self, root: CausalDecoder, outer: Config) -> None:
        super().__init__(root, outer)
        v, a = (outer.nested(f"{name}_config") or Config({}) for name in ("vision", "audio"))
        self._vision, heard = MobileNetV5(), ConformerTower(a)
        root.buffer_numbers += heard.numbers
        self._silent_bytes = heard.buffer_bytes
        self._projector = TwoWayEmbedder(v, OUT, root.s.hidden)
        self._heard = TwoWayEmbedder(a, heard.hidden, root.s.hidden)
        assert isinstance(root, Gemma3n)
        if root.tied:  # transformers' quantizers leave out what has the last parameter, which is not the head's then
            root.last.packable, self._heard.embedding_projection.packable = True, False
        parts: list[tuple[str, Module]] = [
            (self.tower, self._vision),
            ("audio_tower", heard),
            (self.projector, self._projector),
            ("embed_audio", self._heard),
        ]
        self.join(parts)

    def buffer_bytes(self) -> int:
        """Of the tower for sound: places, masks and caps."""
        return self._silent_bytes

    def pictures(self, recipe: Recipe) -> Pictures | None:
        """All are resized to one size."""
        count = recipe.images
        tokens = TOKENS_ACROSS**2
        return Pictures(count * 3 * SIDE**2, count * tokens, count * tokens) if count else None

    def beside(self, recipe: Recipe) -> list[tuple[str, Size]]:
        """A kind for every token."""
        return [("kinds of tokens", TOKENS * 8)]

    def placed(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Both embedders on every token; then the pictures'."""
        call.held.clear()
        for embedder, name in ((self._projector, "pictures"), (self._heard, "sound")):
            mask = t.new(TOKENS, "bool", 1, f"which tokens are of {name}")
            numbers = t.new(TOKENS, "int64", 1, "token ids without others")
            found = embedder.looked_up(t, numbers)
            hidden = where(t, mask, found, hidden, f"embeddings with tokens of {name}")
            call.held += [mask, numbers, found]
        pictures = self.pictures(call.recipe)
        if pictures is not None:
            hidden = self.run(t, hidden, call, pictures)
        call.held.insert(0, hidden)
        return hidden

    def run(self, t: Tape, hidden: Tensor, call: Call, pictures: Pictures) -> Tensor:
        """The tower's states, multiplied in place, and embedded."""
        pixels = Tensor(None, BATCH * pictures.values, given_dtype(call.recipe), 3)  # booked with the batch
        own = call.of_length(BATCH * call.recipe.images)
        several = call.recipe.images > 1 or call.validity.exceeds("micro_batch_size", 1)
        shown = Shown(BATCH * call.recipe.images, several)
        states = self._vision(t, pixels, own, shown, f"{self.below}{self.tower}")
        call.held.append(states)
        return exchanged(self, t, hidden, call, self._projector(t, states))

    def unreached(self, recipe: Recipe) -> list[Parameter]:
        """The tower for sound and the norm behind it; without pictures those for them too."""
        silent = [*self.of(("audio_tower",)), *self._heard.soft_embedding_norm.all_parameters()]
        if self.pictures(recipe) is not None:
            return silent
        return [*silent, *self.of((self.tower,)), *self._projector.soft_embedding_norm.all_parameters()]

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """The embedders work on every token, that for pictures on their tokens too."""
        if name.startswith(f"{self.below}embed_audio."):
            return 1.0
        found = super().uses_per_token(name, recipe)
        return found + 1.0 if name.startswith(f"{self.below}{self.projector}.") else found

    def assumptions(self, recipe: Recipe) -> list[str]:
        """And that checkpointing is not the tower's."""
        kept = recipe.gradient_checkpointing and recipe.freeze_tower == NO_TOWER and self.pictures(recipe) is not None
        return [*super().assumptions(recipe), *([UNREACHED] if kept else [])]

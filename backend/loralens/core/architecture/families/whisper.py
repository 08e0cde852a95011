"""Whisper: convolutions and encoder for sound of fixed length, decoder for text.

`sequence_length` is the number of label tokens, of which the decoder takes so many at most; the encoder always sees
`max_source_positions` places.

Source: transformers 5.23, models/whisper/modeling_whisper.py (`WhisperForConditionalGeneration`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import Attention, LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import Root
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.convolution import Convolution, given_dtype
from loralens.core.architecture.loss import plain_cross_entropy
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.shape import MAX_HEADS
from loralens.core.architecture.stack import walk_stack
from loralens.core.question.precision import ITEM_BYTES
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, ONE, SEQUENCE, TOKENS, Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.validity import Validity

FIXED_SOUND: Final = (
    "the encoder always sees {places} places of sound (max_source_positions); sequence_length is the number of label tokens, "
    "and padding is not masked"
)
CUT: Final = "sequence_length is cut to {longest} label tokens (max_target_positions): the model takes no more"
NO_LAYERDROP: Final = "no layer is dropped (LayerDrop {share}): the most that a step can take"


@dataclass(frozen=True, slots=True)
class WhisperWidths:
    """What the config says of every layer."""

    hidden: int
    places: int  # of sound, as the encoder sees them
    act: str
    dropout: float
    attention_dropout: float
    activation_dropout: float

    @staticmethod
    def read(config: Config) -> WhisperWidths:
        """Read a config, with the family's defaults."""
        return WhisperWidths(
            config.integer("d_model", "hidden_size"),
            config.integer("max_source_positions", default=1500),
            known(config.text("activation_function", "gelu"), "config.activation_function"),
            *(config.number(name, 0.0, 0, 1) for name in ("dropout", "attention_dropout", "activation_dropout")),
        )


class WhisperAttention(Module):
    """Four projections; the key has no bias. Query, key and value are copied to lie by head."""

    def __init__(self, hidden: int, heads: int, dropout: float, *, causal: bool) -> None:
        self.k_proj = Linear(hidden, hidden, name="attention key")
        self.v_proj = Linear(hidden, hidden, True, name="attention value")
        self.q_proj = Linear(hidden, hidden, True, name="attention query")
        self.out_proj = Linear(hidden, hidden, True, name="attention output projection")
        self._heads, self._width, self._dropout, self._causal = heads, hidden // heads, dropout, causal

    def forward(self, t: Tape, x: Tensor, call: Call, mask: Tensor | None, seen: Tensor, keys: Size) -> Tensor:
        """Shapes: x (rows, hidden) to the same; `seen` (any rows, hidden) is what key and value are made of."""
        width = self._width
        q = ops.copy(
            t,
            ops.scale(t, self.q_proj(t, x), "attention: scaled query").view(width),
            "attention: query by head",
        )
        k = ops.copy(t, self.k_proj(t, seen).view(width), "attention: key by head")
        v = ops.copy(t, self.v_proj(t, seen).view(width), "attention: value by head")
        kernel = Attention(
            self._heads,
            self._heads,
            width,
            width,
            call.attention,
            self._dropout,
            heads_first=True,
            softmax_dtype=None,
            returns_weights=True,
            causal=self._causal,
            keys=keys,
        )
        out: Tensor = self.out_proj(t, kernel(t, q, k, v, mask).view(self._heads * width))
        return out


class WhisperLayer(Module):
    """Encoder layer, or decoder layer with cross-attention."""

    def __init__(self, w: WhisperWidths, intermediate: int, heads: int, crosses: bool) -> None:
        hidden = w.hidden
        self.self_attn: Module = WhisperAttention(hidden, heads, w.attention_dropout, causal=crosses)
        self.self_attn_layer_norm = LayerNorm(hidden)
        if crosses:
            self.encoder_attn = WhisperAttention(hidden, heads, w.attention_dropout, causal=False)
            self.encoder_attn_layer_norm = LayerNorm(hidden)
        self.fc1 = Linear(hidden, intermediate, True, name="mlp up")
        self.fc2 = Linear(intermediate, hidden, True, name="mlp down")
        self.final_layer_norm = LayerNorm(hidden)
        self._w, self._crosses = w, crosses

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        w = self._w
        hidden, weights = self._attend(t, hidden, call)
        if self._crosses:
            hidden, weights = self._cross(t, hidden, call, weights)
        t.local(weights)
        residual = hidden
        hidden = self.final_layer_norm(t, hidden)
        hidden = activation(t, self.fc1(t, hidden), w.act, "mlp: activated")
        hidden = ops.dropout(t, hidden, w.activation_dropout, "mlp: dropout")
        hidden = self.fc2(t, hidden)
        hidden = ops.dropout(t, hidden, w.dropout, "residual dropout")
        hidden = ops.add(t, residual, hidden, "residual stream after the layer")
        if not self._crosses and hidden.dtype == "float16":
            hidden = ops.clamp(t, hidden, "residual stream, clamped")
        return hidden

    def _attend(self, t: Tape, hidden: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        residual = hidden
        hidden = self.self_attn_layer_norm(t, hidden)
        hidden = self.self_attn(t, hidden, call, call.masks.get("full"), hidden, call.length)
        weights = t.handed.take_weights()
        hidden = ops.dropout(t, hidden, self._w.dropout, "residual dropout")
        return ops.add(t, residual, hidden, "residual stream after attention"), weights

    def _cross(self, t: Tape, hidden: Tensor, call: Call, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        residual = hidden
        hidden = self.encoder_attn_layer_norm(t, hidden)
        sound = call.shared["encoder"]
        hidden = self.encoder_attn(t, hidden, call, None, sound, ONE * self._w.places)
        weights = t.handed.take_weights()
        hidden = ops.dropout(t, hidden, self._w.dropout, "residual dropout")
        return ops.add(t, residual, hidden, "residual stream after cross-attention"), weights


class WhisperEncoder(Module):
    """Two convolutions, sinusoids that never train, layers."""

    def __init__(self, w: WhisperWidths, bins: int, intermediate: int, heads: int, layers: int) -> None:
        self.conv1 = Convolution(bins, w.hidden, 3, name="sound: first convolution")
        self.conv2 = Convolution(w.hidden, w.hidden, 3, name="sound: second convolution")
        self.embed_positions = Embedding(w.places, w.hidden)
        self.embed_positions.weight.frozen = True
        self.layers = Stack(partial(WhisperLayer, w, intermediate, heads), [False] * layers)
        self.layer_norm = LayerNorm(w.hidden)
        self._w, self._bins = w, bins

    def forward(self, t: Tape, call: Call, checkpointing: bool) -> Tensor:
        """Shapes: to (batch * places, hidden)."""
        embeddings = self._sound(t, call)
        numbers = t.new(ONE * self._w.places, "int64", 1, "sound: positions")
        positions = self.embed_positions(t, ONE * self._w.places, "sound: position embeddings", numbers)
        hidden = ops.add(t, embeddings, positions, "sound: embeddings")
        t.end(positions)
        hidden = ops.dropout(t, hidden, self._w.dropout, "embeddings: dropout")
        t.ledger.mark("embeddings of the sound")
        name = "model.encoder.layers"
        hidden = walk_stack(t, name, self.layers.layers, hidden, call, checkpointing=checkpointing)
        hidden = self.layer_norm(t, hidden)
        return hidden

    def _sound(self, t: Tape, call: Call) -> Tensor:
        frames = BATCH * (2 * self._w.places)
        features = Tensor(None, frames * self._bins, given_dtype(call.recipe), self._bins)  # booked with the batch
        hidden = self.conv1(t, features, frames)
        if call.input_gradients:
            t.require_grad(hidden)
        hidden = activation(t, hidden, "gelu", "sound: first activation")
        hidden = self.conv2(t, hidden, BATCH * self._w.places)
        return activation(t, hidden, "gelu", "sound: second activation")


class WhisperDecoder(Module):
    """Tokens and learned positions, layers that look at the sound."""

    def __init__(
        self, w: WhisperWidths, vocabulary: int, longest: int, intermediate: int, heads: int, layers: int
    ) -> None:
        self.embed_tokens = Embedding(vocabulary, w.hidden)
        self.embed_positions = Embedding(longest, w.hidden)
        self.layers = Stack(partial(WhisperLayer, w, intermediate, heads), [True] * layers)
        self.layer_norm = LayerNorm(w.hidden)
        self._w = w

    def forward(self, t: Tape, tokens: Tensor, sound: Tensor, call: Call, checkpointing: bool) -> Tensor:
        """Shapes: tokens (batch, length), sound (batch * places, hidden); to (batch * length, hidden)."""
        embeddings = self.embed_tokens(t, tokens.numel, "embeddings", tokens)
        if call.input_gradients:
            t.require_grad(embeddings)
        numbers = t.new(tokens.numel, "int64", 1, "positions")
        positions = self._positions(t, numbers)
        hidden = ops.add(t, embeddings, positions, "embeddings with positions")
        hidden = ops.dropout(t, hidden, self._w.dropout, "embeddings: dropout")
        if call.attention == "eager":
            call.masks["full"] = t.new(tokens.numel.times(call.length), embeddings.dtype, 1, "attention mask")
        call.shared["encoder"] = sound
        t.ledger.mark("embeddings of the tokens")
        name = "model.decoder.layers"
        hidden = walk_stack(t, name, self.layers.layers, hidden, call, checkpointing=checkpointing)
        hidden = self.layer_norm(t, hidden)
        t.end(embeddings, positions, numbers)
        return hidden

    def _positions(self, t: Tape, numbers: Tensor) -> Tensor:
        """`weight[numbers]`: backward adds the rows up into a zeroed table."""
        weight = t.parameter(self.embed_positions.weight)
        width = self.embed_positions.width
        return ops.indexed(t, weight, numbers, numbers.numel * width, width, "position embeddings")


class Whisper(Root):
    """Encoder, decoder and head."""

    default_targets = ("q_proj", "v_proj")
    reads_tokens = False
    own_loss = current_code = last_apart = True

    def __init__(self, config: Config) -> None:
        w, vocabulary = WhisperWidths.read(config), config.integer("vocab_size", high=MAX_VOCABULARY)
        layers = {side: config.integer(f"{side}_layers", high=MAX_LAYERS) for side in ("encoder", "decoder")}
        widths = {side: config.integer(f"{side}_ffn_dim") for side in ("encoder", "decoder")}
        heads = {side: config.integer(f"{side}_attention_heads", high=MAX_HEADS) for side in ("encoder", "decoder")}
        for side in ("encoder", "decoder"):
            config.divides(f"{side}_attention_heads", w.hidden, heads[side])
        self._bins = config.integer("num_mel_bins", default=80)
        self._longest = config.integer("max_target_positions", default=448)
        self._drops = max(config.number(f"{side}_layerdrop", 0.0, 0, 1) for side in ("encoder", "decoder"))
        self.model = Module()
        self.model.encoder = WhisperEncoder(w, self._bins, widths["encoder"], heads["encoder"], layers["encoder"])
        self.model.decoder = WhisperDecoder(
            w, vocabulary, self._longest, widths["decoder"], heads["decoder"], layers["decoder"]
        )
        self.proj_out = Linear(w.hidden, vocabulary, name="head")
        self.head, self.vocabulary, self.tied = self.proj_out, vocabulary, config.flag("tie_word_embeddings", True)
        if self.tied:
            self.proj_out.weight = self.model.decoder.embed_tokens.weight
        self._w = w

    def inputs(self, recipe: Recipe, validity: Validity) -> list[tuple[str, Size]]:
        """Sound, and the labels that the decoder learns to write."""
        sound = BATCH * (2 * self._w.places * self._bins * ITEM_BYTES[given_dtype(recipe)])
        return [("sound", sound), ("labels", self._tokens(validity) * 8)]

    def _tokens(self, validity: Validity) -> Size:
        """Label tokens of a micro batch."""
        return BATCH * self._longest if validity.exceeds("sequence_length", self._longest) else TOKENS

    def run(self, t: Tape, call: Call, *, checkpointing: bool) -> Tensor:
        """Encoder, decoder, head, and cross entropy in the logits' own dtype."""
        tokens = self._tokens(call.validity)
        given = t.new(tokens, "int64", 1, "labels, shifted")
        sound = self.model.encoder(t, call.of_length(ONE * self._w.places), checkpointing)
        length = SEQUENCE if tokens == TOKENS else ONE * self._longest
        hidden = self.model.decoder(t, given, sound, call.of_length(length), checkpointing)
        t.section = "logits"
        logits = self.proj_out(t, hidden)
        t.handed.returned(logits, sound)
        loss = plain_cross_entropy(t, logits)
        t.section = "activations"
        return loss

    def uses_per_token(self, name: str, recipe: Recipe) -> float:
        """The sound is as long for few label tokens as for many."""
        ratio = self._w.places / min(recipe.sequence_length, self._longest)
        if name.endswith("conv1"):
            return 2 * ratio
        seen = name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
        return ratio if seen or name.startswith("model.encoder.") else 1.0

    def attention_spans(self, recipe: Recipe) -> list[tuple[int, float]]:
        """Sound sees all sound; tokens see those before them, and all sound."""
        places, length = self._w.places, min(recipe.sequence_length, self._longest)
        own = (length + 1) / 2 if recipe.attention != "eager" else float(length)
        encoder, decoder = self.model.encoder.layers, self.model.decoder.layers
        heard = [(self._w.hidden, places * places / length)] * len(encoder)
        return heard + [(self._w.hidden, own), (self._w.hidden, float(places))] * len(decoder)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """What a sequence is here."""
        found = [*super().assumptions(recipe), FIXED_SOUND.format(places=self._w.places)]
        if recipe.sequence_length > self._longest:
            found.append(CUT.format(longest=self._longest))
        if self._drops:
            found.append(NO_LAYERDROP.format(share=self._drops))
        return found

"""Whisper: convolutions and encoder for sound, decoder for text; counted, not walked.

Source: transformers 5.23, models/whisper/modeling_whisper.py (`WhisperForConditionalGeneration`).
"""

from __future__ import annotations

from functools import partial

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.counting import Counted
from loralens.core.architecture.families.vit import Convolution
from loralens.core.architecture.module import Embedding, Linear, Module, Stack


class WhisperAttention(Module):
    """Four projections; the key has no bias."""

    def __init__(self, hidden: int) -> None:
        self.k_proj = Linear(hidden, hidden, name="attention key")
        self.v_proj = Linear(hidden, hidden, True, name="attention value")
        self.q_proj = Linear(hidden, hidden, True, name="attention query")
        self.out_proj = Linear(hidden, hidden, True, name="attention output projection")


class WhisperLayer(Module):
    """Encoder layer, or decoder layer with cross-attention."""

    def __init__(self, hidden: int, intermediate: int, crosses: bool) -> None:
        self.self_attn = WhisperAttention(hidden)
        self.self_attn_layer_norm = LayerNorm(hidden)
        if crosses:
            self.encoder_attn = WhisperAttention(hidden)
            self.encoder_attn_layer_norm = LayerNorm(hidden)
        self.fc1 = Linear(hidden, intermediate, True, name="mlp up")
        self.fc2 = Linear(intermediate, hidden, True, name="mlp down")
        self.final_layer_norm = LayerNorm(hidden)


class Whisper(Counted):
    """Encoder, decoder and head."""

    family = "whisper"

    def __init__(self, config: Config) -> None:
        hidden, vocabulary = config.integer("d_model", "hidden_size"), config.integer("vocab_size", high=MAX_VOCABULARY)
        layers = {side: config.integer(f"{side}_layers", high=MAX_LAYERS) for side in ("encoder", "decoder")}
        widths = {side: config.integer(f"{side}_ffn_dim") for side in ("encoder", "decoder")}
        self.model = Module()
        self.model.encoder = encoder = Module()
        encoder.conv1 = Convolution(config.integer("num_mel_bins", default=80), hidden, 3)
        encoder.conv2 = Convolution(hidden, hidden, 3)
        encoder.embed_positions = Embedding(config.integer("max_source_positions", default=1500), hidden)
        encoder.embed_positions.weight.frozen = True
        self.model.decoder = decoder = Module()
        decoder.embed_tokens = Embedding(vocabulary, hidden)
        decoder.embed_positions = Embedding(config.integer("max_target_positions", default=448), hidden)
        for side, module in (("encoder", encoder), ("decoder", decoder)):
            module.layers = Stack(partial(WhisperLayer, hidden, widths[side]), [side == "decoder"] * layers[side])
            module.layer_norm = LayerNorm(hidden)
        self.proj_out = Linear(hidden, vocabulary, name="head")
        self.head, self.vocabulary, self.tied = self.proj_out, vocabulary, config.flag("tie_word_embeddings", True)
        if self.tied:
            self.proj_out.weight = decoder.embed_tokens.weight

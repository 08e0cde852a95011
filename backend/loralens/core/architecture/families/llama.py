"""Llama and its close relatives: Llama 1-3.x, Mistral, Qwen2/2.5, Qwen3.

Source: transformers 5.23, models/{llama,mistral,qwen2,qwen3}/modeling_*.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from loralens.core.architecture.blocks import Attention, GatedMLP, RMSNorm, Rotary, rotate
from loralens.core.architecture.causal import Call, Root, causal_mask, lookup
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.memory import ops
from loralens.core.memory.tape import Tape, Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a Llama-shaped config."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    attention_bias: bool
    output_bias: bool
    mlp_bias: bool
    query_key_norm: bool
    attention_dropout: float
    windows: tuple[int | None, ...]

    @staticmethod
    def read(config: Config) -> Shape:
        """Read and check a config; raises `InvalidInput` naming the field."""
        family = config.text("model_type", "llama")
        hidden = config.integer("hidden_size")
        heads = config.integer("num_attention_heads", high=65_536)
        kv_heads = config.integer("num_key_value_heads", default=heads, high=65_536)
        config.divides("num_key_value_heads", heads, kv_heads)
        if not config.has("head_dim"):
            config.divides("num_attention_heads", hidden, heads)
        layers = config.integer("num_hidden_layers", high=MAX_LAYERS)
        qwen2 = family == "qwen2"
        return Shape(
            hidden=hidden,
            intermediate=config.integer("intermediate_size"),
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=config.integer("head_dim", default=128 if family == "qwen3" else max(1, hidden // heads), high=65_536),
            vocabulary=config.integer("vocab_size", high=MAX_VOCABULARY),
            tied=config.flag("tie_word_embeddings", False),
            attention_bias=qwen2 or (family != "mistral" and config.flag("attention_bias", False)),
            output_bias=family in ("llama", "qwen3") and config.flag("attention_bias", False),
            mlp_bias=family == "llama" and config.flag("mlp_bias", False),
            query_key_norm=family == "qwen3",
            attention_dropout=config.number("attention_dropout", 0.0, 0, 1),
            windows=_windows(config, family, layers),
        )


def _windows(config: Config, family: str, layers: int) -> tuple[int | None, ...]:
    """Sliding window per layer; Qwen applies it only where `use_sliding_window` and from `max_window_layers` on."""
    if family not in ("mistral", "qwen2", "qwen3") or not config.has("sliding_window"):
        return (None,) * layers
    window = config.integer("sliding_window", high=2**31)
    if family == "mistral":
        return (window,) * layers
    if not config.flag("use_sliding_window", False):
        return (None,) * layers
    types = config.words("layer_types", layers)
    if types is not None:
        return tuple(window if kind == "sliding_attention" else None for kind in types)
    full = config.integer("max_window_layers", default=28, low=0, high=2**31)
    return tuple(None if index < full else window for index in range(layers))


class SelfAttention(Module):
    """q, k, v projections, rotary, one attention kernel, output projection."""

    def __init__(self, s: Shape) -> None:
        self.q_proj = Linear(s.hidden, s.heads * s.head_dim, s.attention_bias, name="attention query")
        self.k_proj = Linear(s.hidden, s.kv_heads * s.head_dim, s.attention_bias, name="attention key")
        self.v_proj = Linear(s.hidden, s.kv_heads * s.head_dim, s.attention_bias, name="attention value")
        self.o_proj = Linear(s.heads * s.head_dim, s.hidden, s.output_bias, name="attention output projection")
        if s.query_key_norm:
            self.q_norm = RMSNorm(s.head_dim)
            self.k_norm = RMSNorm(s.head_dim)
        self._shape = s

    def forward(self, t: Tape, x: Tensor, call: Call, window: int | None) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s = self._shape
        q = self.q_proj(t, x).view(s.head_dim)
        if s.query_key_norm:
            q = self.q_norm(t, q)
        k = self.k_proj(t, x).view(s.head_dim)
        if s.query_key_norm:
            k = self.k_norm(t, k)
        v = self.v_proj(t, x).view(s.head_dim)
        tables = call.shared["rotary"]
        q, k = rotate(t, q, tables, "attention query"), rotate(t, k, tables, "attention key")
        kernel = Attention(s.heads, s.kv_heads, s.head_dim, s.head_dim, call.recipe.attention, s.attention_dropout)
        out = kernel(t, q, k, v, call.masks["sliding" if window else "full"])
        return self.o_proj(t, out.view(s.heads * s.head_dim))


class DecoderLayer(Module):
    """Pre-norm attention and gated MLP on a residual stream."""

    def __init__(self, s: Shape, window: int | None) -> None:
        self.self_attn = SelfAttention(s)
        self.mlp = GatedMLP(s.hidden, s.intermediate, s.mlp_bias)
        self.input_layernorm = RMSNorm(s.hidden)
        self.post_attention_layernorm = RMSNorm(s.hidden)
        self._window = window

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call, self._window)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = self.mlp(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Decoder(Module):
    """`model.`: embedding, layers, final norm."""

    def __init__(self, s: Shape) -> None:
        self.embed_tokens = Embedding(s.vocabulary, s.hidden)
        self.layers = Stack(lambda window: DecoderLayer(s, window), s.windows)
        self.norm = RMSNorm(s.hidden)


class Llama(Root):
    """The causal language model."""

    default_targets = ("q_proj", "v_proj")

    def __init__(self, config: Config) -> None:
        self.shape = s = Shape.read(config)
        self.model = Decoder(s)
        self.lm_head = Linear(s.hidden, s.vocabulary, name="head")
        if s.tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.vocabulary = s.vocabulary
        self.head = self.lm_head
        self.tied = s.tied
        self.buffer_bytes = s.head_dim // 2 * 4 * 2  # inverse frequencies and their copy

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token embeddings, rotary tables and masks."""
        s = self.shape
        hidden = lookup(t, self.model.embed_tokens, call)
        call.masks["full"] = causal_mask(t, call)
        windows = {window for window in s.windows if window}
        call.masks["sliding"] = causal_mask(t, call, sliding_window=min(windows)) if windows else None
        call.shared["rotary"] = Rotary(s.head_dim).tables(t, hidden)
        return hidden

    def finish(self, t: Tape, hidden: Tensor) -> Tensor:
        """Final norm."""
        return self.model.norm(t, hidden)

"""The numbers that every decoder's config states, read once and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from loralens.core.architecture.activations import known
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config

MAX_HEADS = 65_536


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder. `windows[i]` is layer i's sliding window, None where it sees everything."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rotated: int  # dimensions of a head that rotary embedding turns
    vocabulary: int
    tied: bool
    attention_dropout: float
    act: str
    windows: tuple[int | None, ...]

    @staticmethod
    def read(
        config: Config,
        *,
        tied: bool = False,
        intermediate: int | None = None,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        act: str = "silu",
        rotary: float = 1.0,
        dropout: float = 0.0,
    ) -> Shape:
        """Read a config; the keywords are the family's defaults for what it leaves out.

        Raises:
            InvalidInput: a field is missing, malformed or out of range.
            UnsupportedArchitecture: the activation function is not modelled.
        """
        hidden = config.integer("hidden_size", "n_embd", "d_model")
        heads = config.integer("num_attention_heads", "n_head", "num_heads", high=MAX_HEADS)
        present = "num_key_value_heads" in config.entries and not config.has("num_key_value_heads")
        kv = config.integer(
            "num_key_value_heads", default=heads if present or kv_heads is None else kv_heads, high=MAX_HEADS
        )
        config.divides("num_key_value_heads", heads, kv)
        if "head_dim" in config.entries and not config.has("head_dim"):
            head_dim = None  # null means hidden / heads, silence the family's own default
        if head_dim is None and not config.has("head_dim"):
            config.divides("num_attention_heads", hidden, heads)
        width = config.integer("head_dim", default=head_dim or max(1, hidden // heads), high=65_536)
        layers = config.integer("num_hidden_layers", "n_layer", "num_layers", high=MAX_LAYERS)
        name = next(
            (
                key
                for key in ("hidden_activation", "hidden_act", "activation_function", "activation")
                if config.has(key)
            ),
            "",
        )
        drop = next((key for key in ("attention_dropout", "attn_pdrop") if config.has(key)), "attention_dropout")
        return Shape(
            hidden=hidden,
            intermediate=config.integer("intermediate_size", default=intermediate),
            layers=layers,
            heads=heads,
            kv_heads=kv,
            head_dim=width,
            rotated=rotated(config, width, rotary),
            vocabulary=config.integer("vocab_size", high=MAX_VOCABULARY),
            tied=config.flag("tie_word_embeddings", tied),
            attention_dropout=config.number(drop, dropout, 0, 1),
            act=known(config.text(name, act) if name else act, f"config.{name or 'hidden_act'}"),
            windows=(None,) * layers,
        )

    def with_windows(self, windows: tuple[int | None, ...]) -> Shape:
        """The same with sliding windows."""
        return replace(self, windows=windows)

    def with_rotated(self, rotated: int) -> Shape:
        """The same with rotary embedding on that many values of a head."""
        return replace(self, rotated=rotated)

    def with_kv_heads(self, kv_heads: int) -> Shape:
        """The same with another number of key and value heads."""
        return replace(self, kv_heads=kv_heads)


def rotated(config: Config, head_dim: int, default: float = 1.0) -> int:
    """Dimensions of a head that rotary embedding turns: `partial_rotary_factor` under any of its names."""
    fraction = default
    sources = [config, config.nested("rope_scaling"), config.nested("rope_parameters")]
    for source in sources:
        for name in ("rotary_pct", "partial_rotary_factor"):
            if source is not None and source.has(name):
                fraction = source.number(name, 1.0, 0, 1)
    return int(head_dim * fraction) // 2 * 2


def by_layer_types(
    config: Config, layers: int, default: tuple[int | None, ...], window: int | None
) -> tuple[int | None, ...]:
    """Windows from `layer_types`, or the family's default pattern."""
    types = config.words("layer_types", layers)
    if types is None:
        return default
    return tuple(window if kind == "sliding_attention" else None for kind in types)

"""Llama and its close relatives: Llama 1-3.x, Mistral, Qwen2/2.5, Qwen3.

Source: transformers 5.23, models/{llama,mistral,qwen2,qwen3}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class NormedAttention(SelfAttention):
    """Query and key are normed head by head (Qwen3)."""

    def __init__(self, s: Shape, window: int | None = None, *, bias: bool = False, output_bias: bool = False) -> None:
        super().__init__(s, window, bias=bias, output_bias=output_bias)
        self.q_norm = RMSNorm(s.head_dim)
        self.k_norm = RMSNorm(s.head_dim)

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, then norms."""
        width = self.s.head_dim
        q = self.q_norm(t, self.q_proj(t, x).view(width))
        k = self.k_norm(t, self.k_proj(t, x).view(width))
        return q, k, self.v_proj(t, x).view(width)


class Llama(CausalDecoder):
    """Llama, and the base of its relatives."""

    attention = SelfAttention
    kv_heads: int | None = None
    head_dim: int | None = None

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=self.kv_heads, head_dim=self.head_dim)
        s = s.with_windows(self.windows(config, s.layers))
        bias, output_bias, mlp_bias = self.biases(config)

        def layer(window: int | None) -> DecoderLayer:
            attention = self.attention(s, window, bias=bias, output_bias=output_bias)
            return DecoderLayer(s, attention, GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act))

        self.assemble(s, layer, s.windows)

    def biases(self, config: Config) -> tuple[bool, bool, bool]:
        """Of q, k, v; of the output projection; of the MLP."""
        bias = config.flag("attention_bias", False)
        return bias, bias, config.flag("mlp_bias", False)

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """Every layer's sliding window."""
        return (None,) * layers


class InternLM3(Llama):
    """Llama's code under other defaults (transformers 5.23, models/internlm3/configuration_internlm3.py)."""

    kv_heads = 2
    head_dim = 128

    def biases(self, config: Config) -> tuple[bool, bool, bool]:
        """`qkv_bias` and `bias` have to be equal, and mean all of them."""
        bias = config.flag("attention_bias", config.flag("qkv_bias", False))
        return bias, bias, config.flag("mlp_bias", config.flag("bias", False))


class Mistral(Llama):
    """Grouped keys, one sliding window for all layers."""

    kv_heads = 8

    def biases(self, config: Config) -> tuple[bool, bool, bool]:
        """None."""
        return False, False, False

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """The same everywhere; 4096 where the config is silent, none where it says null."""
        if "sliding_window" in config.entries and not config.has("sliding_window"):
            return (None,) * layers
        return (config.integer("sliding_window", default=4096, high=2**31),) * layers


class Qwen2(Llama):
    """Bias on q, k, v; windows only where `use_sliding_window`, from `max_window_layers` on."""

    both_masks = True
    kv_heads = 32

    def biases(self, config: Config) -> tuple[bool, bool, bool]:
        """On q, k and v."""
        return True, False, False

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """By `layer_types`, or by index."""
        window = (
            config.integer("sliding_window", default=4096, high=2**31)
            if config.flag("use_sliding_window", False)
            else None
        )
        first = config.integer("max_window_layers", default=28, low=0, high=2**31)
        return by_layer_types(
            config, layers, tuple(None if index < first else window for index in range(layers)), window
        )


class Qwen3(Qwen2):
    """No bias by default, but norms on query and key."""

    attention = NormedAttention
    head_dim = 128

    def biases(self, config: Config) -> tuple[bool, bool, bool]:
        """On all four attention projections or none."""
        bias = config.flag("attention_bias", False)
        return bias, bias, False

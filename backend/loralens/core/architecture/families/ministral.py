"""Ministral (2024), Ministral 3 and CWM: Llama without biases, windows by layer.

Source: transformers 5.23, models/{ministral,ministral3,cwm}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import SelfAttention
from loralens.core.architecture.families.llama import Llama, Mistral
from loralens.core.architecture.shape import by_layer_types
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import SEQUENCE
from loralens.core.tape.tape import Tape


class Ministral(Mistral):
    """Windows by `layer_types`."""

    both_masks = True

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """By `layer_types`, or the same everywhere."""
        default = super().windows(config, layers)
        return by_layer_types(config, layers, default, default[0] if default else None)


class Ministral3Attention(SelfAttention):
    """The query is scaled by a function of its position."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding, then the scale."""
        q, k = super().position(t, q, k, call)
        scale = ops.cast(t, t.new(SEQUENCE, "float32", 1, "query: scale by position"), q.dtype, "query: scale")
        return ops.mul(t, q, scale, "attention query, scaled"), k


class Ministral3(Mistral):
    """The language model of Ministral 3 and Mistral Small's successors."""

    attention = Ministral3Attention
    head_dim = 128

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """None unless the config has one."""
        window = config.integer("sliding_window", high=2**31) if config.has("sliding_window") else None
        return (window,) * layers


class Cwm(Llama):
    """Meta's code world model: one full layer, then three sliding ones."""

    both_masks = True
    kv_heads, head_dim = 8, 128

    def biases(self, config: Config) -> tuple[bool, bool, bool]:
        """Only the MLP may have them."""
        return False, False, config.flag("mlp_bias", False)

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """By `layer_types`, or every fourth layer full, the first one to begin with."""
        window = config.integer("sliding_window", default=8192, high=2**31)
        return by_layer_types(config, layers, tuple(window if index % 4 else None for index in range(layers)), window)

"""Nemotron (3, 4, Minitron): layer norms that hold weight - 1, squared ReLUs, rotary on half of each head.

Source: transformers 5.23, models/nemotron/modeling_nemotron.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm, PlainMLP, layer_norm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class LayerNorm1P(LayerNorm):
    """The weight is 1 + what is stored; under autocast everything is cast to its dtype, and the kernel runs in it."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        assert self.weight is not None
        assert self.bias is not None
        weight, bias = ops.shift(t, t.parameter(self.weight), "norm: 1 + weight"), t.parameter(self.bias)
        if t.autocast is not None:
            x = ops.cast(t, x, t.autocast, "norm: input cast by autocast")
            weight = ops.cast(t, weight, t.autocast, "norm: weight cast by autocast")
            bias = ops.cast(t, bias, t.autocast, "norm: bias cast by autocast")
        return layer_norm(t, x, weight, bias)


class NemotronAttention(SelfAttention):
    """Rotary on a part of each head; query and key are always put together anew."""

    heads_first = True

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding of query and key."""
        return rotate_part(t, q, k, call.shared["rotary"], self.s.rotated, pass_empty=True)


class Nemotron(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, act="relu2", rotary=0.5)
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(_: object) -> DecoderLayer:
            mlp = PlainMLP(s.hidden, s.intermediate, ("up_proj", "down_proj"), s.act, mlp_bias)
            return DecoderLayer(s, NemotronAttention(s, bias=bias, output_bias=bias), mlp, LayerNorm1P)

        self.assemble(s, layer, s.windows, norm=LayerNorm1P)

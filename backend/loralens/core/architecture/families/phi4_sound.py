"""Phi-4 multimodal's tower for sound: a Conformer, and two pairs of layers to the language model's width. It is held and does not run.

Source: transformers 5.23, models/phi4_multimodal/modeling_phi4_multimodal.py (`Phi4MultimodalAudioEmbedding` and its parts).
"""

from __future__ import annotations

import math

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.tape.parameter import Parameter


class ConformerMLP(Module):
    """A norm, a gate and a product."""

    def __init__(self, hidden: int, wide: int) -> None:
        self.layer_norm = LayerNorm(hidden)
        self.gate_up_proj = Linear(hidden, 2 * wide, True, name="mlp gate and up")
        self.down_proj = Linear(wide, hidden, True, name="mlp down")


class ConformerConvolution(Module):
    """A gated convolution of single places, one of neighbours, and one more."""

    def __init__(self, a: Config, hidden: int) -> None:
        out = a.integer("ext_pw_out_channel", default=1024)
        wide = hidden * a.integer("depthwise_multiplier", default=1, high=1_024)
        self.layer_norm = LayerNorm(hidden)
        self.glu = Module()
        self.glu.b1, self.glu.b2 = Parameter((1, out, 1)), Parameter((1, out, 1))
        self.glu.ext_pw_conv_1d = Convolution(hidden, 2 * out, 1)
        self.dw_sep_conv_1d = Module()
        self.dw_sep_conv_1d.dw_conv = Convolution(1, wide, a.integer("kernel_size", default=3, high=1_024))
        self.dw_sep_conv_1d.pw_conv = Convolution(wide, a.integer("depthwise_separable_out_channel", default=1024), 1)
        self.ext_pw_conv_1d = Convolution(hidden, out, 1)


class ConformerLayer(Module):
    """Attention and a convolution between two halves of an MLP."""

    def __init__(self, a: Config, hidden: int, wide: int) -> None:
        self.feed_forward_in = ConformerMLP(hidden, wide)
        self.self_attn = Module()
        for name, label in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output projection")):
            setattr(self.self_attn, f"{name}_proj", Linear(hidden, hidden, True, name=f"attention {label}"))
        self.conv = ConformerConvolution(a, hidden)
        self.feed_forward_out = ConformerMLP(hidden, wide)
        self.layer_norm_att, self.layer_norm = LayerNorm(hidden), LayerNorm(hidden)


class Conformer(Module):
    """Convolutions that take fewer places each time, a table of distances, and the layers."""

    def __init__(self, a: Config) -> None:
        hidden = a.integer("hidden_size", default=1024)
        heads = a.integer("num_attention_heads", default=16)
        a.divides("num_attention_heads", hidden, heads)
        wide, values = a.integer("intermediate_size", default=1536), a.integer("input_size", default=80)
        channels, times = a.integer("nemo_conv_channels", default=1024), a.integer("time_reduction", default=8, low=2)
        halvings, left = int(math.log2(times)), values
        for _ in range(halvings):
            left = (left - 1) // 2 + 1
        self.embed = Module()
        self.embed.conv = Module()
        setattr(self.embed.conv, "0", Convolution(1, channels, 3, 3))
        for at in range(2, 3 * halvings - 1, 3):
            setattr(self.embed.conv, str(at), Convolution(1, channels, 3, 3))
            setattr(self.embed.conv, str(at + 1), Convolution(channels, channels, 1, 1))
        self.embed.out = Linear(channels * left, hidden, True, name="frames to hidden states")
        self.relative_attention_bias_layer = Module()
        distances = a.integer("bias_max_distance", default=1000) * (1 if a.flag("bias_symmetric", False) else 2)
        self.relative_attention_bias_layer.bias_values = Embedding(distances, heads)
        layers = a.integer("num_blocks", default=24, high=MAX_LAYERS)
        self.encoders = Stack(lambda _: ConformerLayer(a, hidden, wide), range(layers))
        self.values = values


class SoundEmbedding(Module):
    """The tower, and its layers to the language model's width: for sound alone, and for sound beside pictures."""

    def __init__(self, a: Config, hidden: int) -> None:
        inputs = a.integer("hidden_size", default=1024) * a.integer("downsample_rate", default=1, high=1_024)
        self.encoder = Conformer(a)
        for kind in ("speech", "vision_speech"):
            setattr(self, f"up_proj_for_{kind}", Linear(inputs, hidden, True, name="projector: first"))
            setattr(self, f"down_proj_for_{kind}", Linear(hidden, hidden, True, name="projector: second"))

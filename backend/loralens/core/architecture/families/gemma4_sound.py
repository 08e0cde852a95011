"""Gemma 4's tower for sound: what it holds. It is counted, not walked: no sample holds sound.

Source: transformers 5.23, models/gemma4/modeling_gemma4.py (`Gemma4AudioModel`).
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.families.gemma4_clipped import Clipped
from loralens.core.architecture.families.per_layer import PowerNorm
from loralens.core.architecture.module import Linear, Module, Stack
from loralens.core.architecture.shape import MAX_HEADS
from loralens.core.tape.parameter import Parameter


class SoundFeedForward(Module):
    """Two layers between norms."""

    def __init__(self, hidden: int, clips: bool) -> None:
        self.ffw_layer_1 = Clipped(hidden, 4 * hidden, clips, "mlp up")
        self.ffw_layer_2 = Clipped(4 * hidden, hidden, clips, "mlp down")
        self.pre_layer_norm, self.post_layer_norm = PowerNorm(hidden), PowerNorm(hidden)


class SoundLayer(Module):
    """Attention and a convolution between two halves of a feed-forward layer."""

    def __init__(self, hidden: int, heads: int, kernel: int, clips: bool) -> None:
        self.feed_forward1, self.feed_forward2 = SoundFeedForward(hidden, clips), SoundFeedForward(hidden, clips)
        self.self_attn = Module()
        for name in ("q_proj", "k_proj", "v_proj", "post"):
            setattr(self.self_attn, name, Clipped(hidden, hidden, clips, f"attention: {name}"))
        self.self_attn.relative_k_proj = Linear(hidden, hidden, name="attention: positions")
        self.self_attn.per_dim_scale = Parameter((hidden // heads,))
        self.lconv1d = Module()
        self.lconv1d.linear_start = Clipped(hidden, 2 * hidden, clips, "convolution: before")
        self.lconv1d.linear_end = Clipped(hidden, hidden, clips, "convolution: after")
        self.lconv1d.depthwise_conv1d = Convolution(1, hidden, kernel, bias=False)
        self.lconv1d.pre_layer_norm, self.lconv1d.conv_norm = PowerNorm(hidden), PowerNorm(hidden)
        self.norm_pre_attn, self.norm_post_attn, self.norm_out = PowerNorm(hidden), PowerNorm(hidden), PowerNorm(hidden)


class SoundTower(Module):
    """The tower."""

    def __init__(self, a: Config) -> None:
        hidden, heads = (
            a.integer("hidden_size", default=1024),
            a.integer("num_attention_heads", default=8, high=MAX_HEADS),
        )
        a.divides("num_attention_heads", hidden, heads)
        layers = a.integer("num_hidden_layers", default=12, high=MAX_LAYERS)
        clips, kernel = a.flag("use_clipped_linears", True), a.integer("conv_kernel_size", default=5, high=65_536)
        first, second = (a.integers("subsampling_conv_channels") or [128, 32])[:2]
        self.out = a.integer("output_proj_dims", default=1536)
        self.subsample_conv_projection = Module()
        for name, inputs, outputs in (("layer0", 1, first), ("layer1", first, second)):
            setattr(self.subsample_conv_projection, name, stage := Module())
            stage.conv = Convolution(inputs, outputs, 3, 3, bias=False)
            stage.norm = LayerNorm(outputs, bias=False)
        self.subsample_conv_projection.input_proj_linear = Linear(first // 4 * second, hidden)
        self.layers = Stack(lambda _: SoundLayer(hidden, heads, kernel, clips), [None] * layers)
        self.output_proj = Linear(hidden, self.out, True)
        self.numbers = layers * (1 + (4 * 10 if clips else 0))

"""MobileNet-V5 (`mobilenetv5_300m_enc`), Gemma 3n's tower: convolutions, and attention whose queries share one key and value.

Source: timm 1.0.31, models/mobilenetv5.py (`MobileNetV5Encoder`), models/_efficientnet_blocks.py, layers/attention2d.py and
layers/fast_norm.py (`rms_norm2d`); torch 2.13 runs such attention by its math kernel (attention.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from loralens.core.architecture.activations import activation
from loralens.core.architecture.convolution import Convolution
from loralens.core.architecture.module import Module, Stack
from loralens.core.architecture.stack import walk_stack
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import interpolated

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape

SIDE: Final = 768  # pixels
STEM: Final = 64
OUT: Final = 2_048
TOKENS_ACROSS: Final = 16


class Shown(NamedTuple):
    """Pictures of the batch."""

    images: Size
    several: bool


class BlockKind(NamedTuple):
    """What tells one block from another; `side` is of its input."""

    side: int
    inputs: int
    out: int
    stride: int = 1
    start: int = 0  # side of a kernel for each channel before, 0: none
    middle: int = 0
    times: int = 1  # channels within, by those of the input
    heads: int = 0
    head: int = 64
    keys: int = 1  # stride of the keys


def _stages() -> list[list[BlockKind]]:
    edges = [BlockKind(384, STEM, 128, 2, times=4), *[BlockKind(192, 128, 128, times=4)] * 2]
    first = [
        BlockKind(192, 128, 256, 2, 3, 5, 6),
        *(BlockKind(96, 256, 256, start=size, times=4) for size in (5, 3, 5, 3)),
    ]
    plain = [BlockKind(48, 640, 640, start=5, times=4)] * 7 + [BlockKind(48, 640, 640)]
    second = [BlockKind(48, 640, 640, heads=12, keys=2), BlockKind(48, 640, 640, times=2)] * 14
    third = [BlockKind(24, 1280, 1280, heads=16, head=96), BlockKind(24, 1280, 1280, times=2)] * 19
    return [
        edges,
        first,
        [BlockKind(96, 256, 640, 2, 5, 5, 6), *plain, *second],
        [BlockKind(48, 640, 1280, 2, 5, 5, 6), *third],
    ]


class ChannelNorm(Module):
    """RMS over channels; GELU behind it where asked."""

    def __init__(self, channels: int, *, activated: bool = False) -> None:
        self.weight = Parameter((channels,))
        self._activated = activated

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (places, channels) to the same."""
        squares = ops.power(t, x, "norm: squares")
        mean = ops.mean(t, squares, "norm: mean")
        t.end(squares)
        shifted = ops.shift(t, mean, "norm: variance + eps")
        t.end(mean)
        normed = ops.mul(t, x, ops.rsqrt(t, shifted, "norm: 1/rms"), "norm: normalized")
        t.end(shifted)
        out = ops.mul(t, normed, t.parameter(self.weight), "norm: output")
        t.end(normed)
        return activation(t, out, "gelu_pytorch_tanh", "norm: activated") if self._activated else out


class NormedConvolution(Module):
    """A convolution over all channels, or over each alone, and a norm."""

    def __init__(
        self, side: int, inputs: int, out: int, kernel: int = 1, stride: int = 1, *,
        alone: bool = False, activated: bool = False, bias: bool = False,
    ) -> None:  # fmt: skip
        self.conv = Same(side, inputs, out, kernel, stride, alone=alone, bias=bias)
        self.bn = ChannelNorm(out, activated=activated)

    def forward(self, t: Tape, x: Tensor, images: Size) -> Tensor:
        """Shapes: (pictures * places, inputs) to (pictures * places, out)."""
        return self.bn(t, self.conv(t, x, images))


class Same(Convolution):
    """A convolution that keeps the side, or divides it; then its input is padded by a copy."""

    def __init__(
        self, side: int, inputs: int, out: int, kernel: int = 1, stride: int = 1, *, alone: bool = False, bias: bool = False
    ) -> None:  # fmt: skip
        super().__init__(1 if alone else inputs, out, kernel, kernel, bias=bias)
        self._places, self._channels = (side // stride) ** 2, inputs
        padding = (side // stride - 1) * stride + kernel - side
        self._padded = (side + padding) ** 2 if stride > 1 else 0

    def forward(self, t: Tape, x: Tensor, places: Size) -> Tensor:
        """Shapes: (pictures * places, inputs) to (pictures * places, out); `places` counts pictures."""
        if self._padded:
            numel = places * (self._padded * self._channels)
            x = derivatives.padded(t, x, "convolution: padded input", numel=numel)
        return super().forward(t, x, places * self._places)


class EdgeBlock(Module):
    """A convolution to more channels, and one back to fewer."""

    def __init__(self, kind: BlockKind) -> None:
        wide = kind.inputs * kind.times
        self.conv_exp = Same(kind.side, kind.inputs, wide, 3, kind.stride)
        self.bn1 = ChannelNorm(wide, activated=True)
        side = kind.side // kind.stride
        self.conv_pwl = Same(side, wide, kind.out)
        self.bn2 = ChannelNorm(kind.out)
        self._skips = kind.inputs == kind.out and kind.stride == 1

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (pictures * places, inputs) to (pictures * places, out)."""
        images: Size = call.beside.images
        out = self.bn1(t, self.conv_exp(t, x, images))
        out = self.bn2(t, self.conv_pwl(t, out, images))
        return ops.add(t, out, x, "block: with its input") if self._skips else out


class InvertedBlock(Module):
    """Convolutions of each channel before and between those to more channels and back."""

    def __init__(self, kind: BlockKind, *, scaled: bool = True, skips: bool = True) -> None:
        wide, side = kind.inputs * kind.times, kind.side // kind.stride
        self._parts = ["pw_exp", "pw_proj"]
        if kind.start:
            self.dw_start = NormedConvolution(
                kind.side, kind.inputs, kind.inputs, kind.start, 1 if kind.middle else kind.stride, alone=True
            )
            self._parts.insert(0, "dw_start")
        self.pw_exp = NormedConvolution(kind.side, kind.inputs, wide, activated=True)
        if kind.middle:
            self.dw_mid = NormedConvolution(kind.side, wide, wide, kind.middle, kind.stride, alone=True, activated=True)
            self._parts.insert(-1, "dw_mid")
        self.pw_proj = NormedConvolution(side, wide, kind.out)
        if scaled:
            self.layer_scale = LayerScale(kind.out)
        self._scaled = scaled
        self._skips = skips and kind.inputs == kind.out and kind.stride == 1

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (pictures * places, inputs) to (pictures * places, out)."""
        out = x
        for name in self._parts:
            out = getattr(self, name)(t, out, call.beside.images)
        out = self.layer_scale(t, out) if self._scaled else out
        return ops.add(t, out, x, "block: with its input") if self._skips else out


class LayerScale(Module):
    """A factor for each channel."""

    def __init__(self, channels: int) -> None:
        self.gamma = Parameter((channels,))

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (places, channels) to the same."""
        return ops.mul(t, x, t.parameter(self.gamma), "block: scaled")


class QueryBlock(Module):
    """Attention of every place to all, or to every fourth."""

    def __init__(self, kind: BlockKind) -> None:
        self.norm = ChannelNorm(kind.inputs)
        self.attn = SharedKeyAttention(kind)
        self.layer_scale = LayerScale(kind.out)

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (pictures * places, channels) to the same."""
        out = self.attn(t, self.norm(t, x), call)
        return ops.add(t, self.layer_scale(t, out), x, "block: with its input")


class SharedKeyAttention(Module):
    """One key and one value for all heads."""

    def __init__(self, kind: BlockKind) -> None:
        width, side = kind.heads * kind.head, kind.side // kind.keys
        for name, out in (("query", width), ("key", kind.head), ("value", kind.head)):
            setattr(self, name, part := Module())
            if name != "query" and kind.keys > 1:
                part.down_conv = Same(kind.side, kind.inputs, kind.inputs, 3, kind.keys, alone=True)
                part.norm = ChannelNorm(kind.inputs)
            part.proj = Same(kind.side if name == "query" else side, kind.inputs, out)
        self.output = Module()
        self.output.proj = Same(kind.side, width, kind.out)
        self._kind, self._places, self._keys = kind, kind.side**2, side**2

    def _taken(self, t: Tape, x: Tensor, name: str, images: Size) -> Tensor:
        part = getattr(self, name)
        if name != "query" and self._kind.keys > 1:
            x = part.norm(t, part.down_conv(t, x, images))
        return ops.copy(t, part.proj(t, x, images), f"attention: {name} by place")

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (pictures * places, channels) to the same."""
        images: Size = call.beside.images
        q, k, v = (self._taken(t, x, name, images) for name in ("query", "key", "value"))
        if t.autocast is not None:
            q, k, v = (ops.cast(t, each, t.autocast, "attention: input cast by autocast") for each in (q, k, v))
        outside, t.autocast = t.autocast, None  # below autocast's reach
        out = self._math(t, q, k, v, images, several=call.beside.several)
        t.autocast = outside
        for label in ("attention: output by place", "attention: output by channel"):
            out = t.replace(out, ops.copy(t, out, label))
        return self.output.proj(t, out, images)

    def _math(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, images: Size, *, several: bool) -> Tensor:
        """The composite kernel, in float32; a key that all heads share is copied for each where there are several pictures."""
        dtype, heads, head = q.dtype, self._kind.heads, self._kind.head
        q, k, v = (ops.cast(t, x.view(), "float32", "attention (math): input in float32") for x in (q, k, v))
        first = ops.scale(t, q, "attention (math): scaled query")
        second = ops.scale(t, k, "attention (math): scaled key")
        third = v.view()
        if several:
            second, third = (
                ops.copy(t, x, f"attention (math): {name} for all heads", x.numel * heads)
                for x, name in ((second, "key"), (v, "value"))
            )
        pairs = images * (heads * self._places * self._keys)
        flops = pairs * (2 * head)
        scores = ops.matmul(t, first, second, pairs, 1, "attention (math): scores", flops=flops)
        softmax = ops.softmax(t, scores, "float32", "attention (math): softmax")
        t.end(t.new(pairs, "bool", 1, "attention (math): which scores are minus infinity", "temporaries"), scores)
        numel = images * (self._places * heads * head)
        out = ops.matmul(t, softmax, third, numel, head, "attention (math): output by head", flops=flops)
        t.end(first, second, third, softmax, q, k, v)
        return t.replace(out, ops.cast(t, out, dtype, "attention (math): output cast back"))


class Fusion(Module):
    """The last two stages side by side, at the larger one's size; then means of so many places as there are tokens."""

    def __init__(self) -> None:
        self.ffn = InvertedBlock(BlockKind(48, 1920, OUT, times=2), scaled=False, skips=False)
        self.norm = ChannelNorm(OUT)

    def forward(self, t: Tape, larger: Tensor, smaller: Tensor, call: Call) -> Tensor:
        """Shapes: (pictures * 48 * 48, 640), (pictures * 24 * 24, 1280) to (pictures * tokens, out)."""
        images: Size = call.beside.images
        grown = interpolated(t, smaller, smaller.numel * 4, "smaller stage, grown")
        both = ops.cat(t, [larger, grown], 1920, "last two stages")
        found = self.ffn(t, both, call)
        out = t.new(images * (TOKENS_ACROSS**2 * OUT), found.dtype, OUT, "stages: averaged")
        size = found.numel, found.dtype, OUT
        kept = derivatives.AVERAGE.kept(self=found)
        t.record("average", [out], [found], kept, lambda g: t.new(*size, "gradient: average", "temporaries"))
        t.end(found)
        return self.norm(t, out)


class MobileNetV5(Module):
    """The tower. transformers hands a model's checkpointing on to its own modules, not to timm's."""

    def __init__(self) -> None:
        self.timm_model = inner = Module()
        inner.conv_stem = NormedConvolution(SIDE, 3, STEM, 3, 2, bias=True, activated=True)
        inner.blocks = Module()
        stages = _stages()
        for index, kinds in enumerate(stages):
            setattr(inner.blocks, str(index), Stack(_block, kinds))
        inner.msfa = Fusion()
        self._stages = len(stages)

    def forward(self, t: Tape, pixels: Tensor, call: Call, shown: Shown, name: str) -> Tensor:
        """Shapes: (pictures * pixels, 3) to (pictures * tokens, out)."""
        inner = self.timm_model
        call.beside = shown
        pixels = ops.cast(t, pixels, inner.conv_stem.conv.weight.dtype, "pictures in the tower's dtype")
        hidden = inner.conv_stem(t, pixels, shown.images)
        found = []
        for index in range(self._stages):
            layers = getattr(inner.blocks, str(index)).layers
            stage = f"{name}.timm_model.blocks.{index}"
            hidden = walk_stack(t, stage, layers, hidden, call, checkpointing=False)
            found.append(hidden)
        out: Tensor = inner.msfa(t, *found[-2:], call)
        return out


def _block(kind: BlockKind) -> Module:
    if kind.heads:
        return QueryBlock(kind)
    return EdgeBlock(kind) if kind.side == 384 or kind.inputs == kind.out == 128 else InvertedBlock(kind)

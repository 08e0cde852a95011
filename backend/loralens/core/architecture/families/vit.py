"""ViT with a linear classifier on the first token; counted, not walked.

Source: transformers 5.23, models/vit/modeling_vit.py (`ViTForImageClassification`).
"""

from __future__ import annotations

from collections.abc import Mapping

from loralens.core.architecture.blocks import LayerNorm, PlainMLP
from loralens.core.architecture.config import Config
from loralens.core.architecture.counting import Counted
from loralens.core.architecture.module import Linear, Module, Parameter, Stack
from loralens.core.architecture.shape import Shape


class ViTAttention(Module):
    """Four projections."""

    def __init__(self, s: Shape, bias: bool) -> None:
        self.q_proj = Linear(s.hidden, s.hidden, bias, name="attention query")
        self.k_proj = Linear(s.hidden, s.hidden, bias, name="attention key")
        self.v_proj = Linear(s.hidden, s.hidden, bias, name="attention value")
        self.o_proj = Linear(s.hidden, s.hidden, True, name="attention output projection")


class ViTLayer(Module):
    """Pre-norm attention and MLP."""

    def __init__(self, s: Shape, bias: bool) -> None:
        self.attention = ViTAttention(s, bias)
        self.layernorm_before = LayerNorm(s.hidden)
        self.layernorm_after = LayerNorm(s.hidden)
        self.mlp = PlainMLP(s.hidden, s.intermediate, ("fc1", "fc2"), s.act)


class Convolution(Module):
    """A convolution's weight and bias. Shapes: weight (out, in, *kernel)."""

    def __init__(self, inputs: int, outputs: int, *kernel: int) -> None:
        self.weight = Parameter((outputs, inputs, *kernel))
        self.bias = Parameter((outputs,))


class ViT(Counted):
    """The image classifier; two labels where the config names none."""

    family = "vit"
    default_targets = ("q_proj", "v_proj")

    def __init__(self, config: Config) -> None:
        s = Shape.read(Config({**config.entries, "vocab_size": 1}), act="gelu", rotary=0)
        image, patch = (config.pair(name, default) for name, default in (("image_size", 224), ("patch_size", 16)))
        bias = config.flag("qkv_bias", True)
        labels = config.entries.get("id2label")
        count = len(labels) if isinstance(labels, Mapping) and labels else config.integer("num_labels", default=2)
        self.vit = Module()
        self.vit.embeddings = embeddings = Module()
        patches = (image[0] // patch[0]) * (image[1] // patch[1])
        embeddings.cls_token = Parameter((1, 1, s.hidden))
        embeddings.patch_embeddings = Module()
        embeddings.patch_embeddings.projection = Convolution(
            config.integer("num_channels", default=3), s.hidden, *patch
        )
        embeddings.position_embeddings = Parameter((1, patches + 1, s.hidden))
        self.vit.layers = Stack(lambda _: ViTLayer(s, bias), s.windows)
        self.vit.layernorm = LayerNorm(s.hidden)
        self.classifier = Linear(s.hidden, count, True, name="head")
        self.head, self.vocabulary, self.tied = None, count, False  # type: ignore[assignment]

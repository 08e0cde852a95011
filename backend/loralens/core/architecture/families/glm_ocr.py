"""GLM-OCR: GLM-4.1V's layers without biases, and its tower without sampled positions, with norms on query and key.

Source: transformers 5.23, models/glm_ocr/modeling_glm_ocr.py; pictures as models/glm4v/image_processing_pil_glm4v.py makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.families.glm import Glm4Layer
from loralens.core.architecture.families.glm4v import Glm4vAttention, Glm4vBlock, Glm4vMedia, Glm4vText, Glm4vTower
from loralens.core.architecture.families.qwen_vision import VisionAttention
from loralens.core.architecture.shape import Shape

if TYPE_CHECKING:
    from loralens.core.architecture.config import Config
    from loralens.core.architecture.module import Module
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.tape import Tape


class GlmOcrText(Glm4vText):
    """The language model; a head has the width that the config says."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8)
        self.assemble(s, lambda _: Glm4Layer(s, Glm4vAttention(s)), s.windows)


class GlmOcrVisionAttention(VisionAttention):
    """A norm on every head of query and of key."""

    def __init__(self, hidden: int, heads: int, bias: bool) -> None:
        super().__init__(hidden, heads, bias=bias, output_bias=bias)
        self.q_norm, self.k_norm = RMSNorm(hidden // heads), RMSNorm(hidden // heads)

    def normed(self, t: Tape, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Before they are turned."""
        width, whole = self._hidden // self._heads, q.width
        q = self.q_norm(t, q.view(width))
        k = self.k_norm(t, k.view(width))
        return q.view(whole), k.view(whole)


class GlmOcrBlock(Glm4vBlock):
    """Attention and MLP with biases; the MLP has a width of its own."""

    def __init__(self, v: Config, hidden: int, heads: int, act: str) -> None:
        bias = v.flag("attention_bias", True)
        self.norm1, self.norm2 = RMSNorm(hidden), RMSNorm(hidden)
        self.attn = GlmOcrVisionAttention(hidden, heads, bias)
        self.mlp = GatedMLP(hidden, v.integer("intermediate_size", default=4096), bias, act)


class GlmOcrTower(Glm4vTower):
    """The tower with its merger, which is as many times as wide as a pixel has colours."""

    sampled = False

    def block(self, v: Config, hidden: int, heads: int, act: str) -> Module:
        """A layer."""
        return GlmOcrBlock(v, hidden, heads, act)

    def merged(self, v: Config, out: int) -> int:
        """The width inside the merger."""
        return out * v.integer("in_channels", default=3)


class GlmOcrMedia(Glm4vMedia):
    """GLM-OCR's tower for pictures."""

    def made(self, v: Config) -> Module:
        """From the vision config."""
        defaults = {"hidden_size": 1024, "num_heads": 16, "out_hidden_size": 1536}
        return GlmOcrTower(v.over({}, defaults))

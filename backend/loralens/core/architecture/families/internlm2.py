"""InternLM2 and 2.5: Llama under other names, with query, key and value in one matrix, group by group.

Source: internlm/internlm2_5-7b on the Hub, modeling_internlm2.py, as of 2.5 (with SDPA); read in DakeQQ/Native-LLM-for-Android
(Export_ONNX/InternLM/modeling_modified) and, as of 2.0, in OpenGVLab/InternVL 0c8993d (internvl_chat/internvl/model/internlm2).
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import PartNames
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe_looped import ExpertMLP
from loralens.core.architecture.remote_decoder import RemoteAttention, RemoteDecoder
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class InternLM2Attention(RemoteAttention):
    """Each group of query heads is followed by its key and its value."""

    def __init__(self, s: Shape, bias: bool) -> None:
        width = (s.heads + 2 * s.kv_heads) * s.head_dim
        self.wqkv = Linear(s.hidden, width, bias, name="attention query, key and value")
        self.wo = Linear(s.heads * s.head_dim, s.hidden, bias, name="attention output projection")
        self.s = s

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three slices of each group; several query heads of a group are copied out."""
        width, groups = self.s.head_dim, self.s.heads // self.s.kv_heads
        fused = t.local(self.wqkv(t, x)).view((groups + 2) * width)
        q = ops.slice_last(t, fused, groups * width, "attention: query")
        if groups > 1:
            q = ops.copy(t, q, "attention: query by head")
        k, v = (ops.slice_last(t, fused, width, f"attention: {name}") for name in ("key", "value"))
        return q.view(width), k, v

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """The output projection."""
        return self.wo(t, x)


class InternLM2Layer(Module):
    """Pre-norm attention and gated MLP on a residual stream."""

    def __init__(self, s: Shape, bias: bool) -> None:
        self.attention = InternLM2Attention(s, bias)
        self.feed_forward = ExpertMLP(s.hidden, s.intermediate, s.act)
        self.attention_norm = RMSNorm(s.hidden)
        self.ffn_norm = RMSNorm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.attention(t, self.attention_norm(t, hidden), call)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.feed_forward(t, self.ffn_norm(t, hidden))
        return ops.add(t, residual, hidden, "residual stream after the layer")


class InternLM2(RemoteDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s, bias = Shape.read(config), config.flag("bias", True)
        names = PartNames(embedding="tok_embeddings")
        self.assemble(s, lambda _: InternLM2Layer(s, bias), s.windows, names=names)
        self.call_head("output")
        self.buffer_bytes = s.layers * (s.rotated // 2 * 4)  # inverse frequencies in each layer

"""StableLM: layer norms, rotary on a quarter of each head, sequential or parallel branches.

Source: transformers 5.23, models/stablelm/modeling_stablelm.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, LayerNorm, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.module import Module
from loralens.core.architecture.rotary import cut
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class NormPerHead(Module):
    """A layer norm without bias for every head."""

    def __init__(self, width: int, heads: int) -> None:
        self.norms = Module()
        for head in range(heads):
            setattr(self.norms, str(head), LayerNorm(width, bias=False))
        self._width, self._heads = width, heads

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, heads * width) to the same."""
        parts = ops.split(t, x.view(self._width * self._heads), [self._width] * self._heads, "attention: heads")
        normed = [norm(t, part) for (_, norm), part in zip(self.norms.children(), parts, strict=True)]
        return ops.cat(t, normed, self._width, "attention: normed heads")


class StableLmAttention(SelfAttention):
    """The turned parts of query and key live until the attention returns."""

    heads_first = True

    def __init__(self, s: Shape, bias: bool, norms: bool) -> None:
        super().__init__(s, bias=bias)
        if norms:
            self.q_layernorm = NormPerHead(s.head_dim, s.heads)
            self.k_layernorm = NormPerHead(s.head_dim, s.kv_heads)
        self._norms = norms

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, tables = self.s, call.shared["rotary"]
        q, k, v = self.project(t, x)
        if self._norms:
            q = self.q_layernorm(t, q)
            k = self.k_layernorm(t, k)
        q_rot, q_pass = cut(t, q, s.rotated, "attention query")
        k_rot, k_pass = cut(t, k, s.rotated, "attention key")
        q_rot, k_rot = rotate(t, q_rot, tables, "attention query"), rotate(t, k_rot, tables, "attention key")
        q = ops.cat(t, [q_rot, q_pass], s.head_dim, "attention query, whole")
        k = ops.cat(t, [k_rot, k_pass], s.head_dim, "attention key, whole")
        out = self.kernel(call)(t, q, k, v, call.masks["full"])
        return self.output(t, out.view(s.heads * s.head_dim))


class StableLmLayer(Module):
    """Sequential or parallel residual branches."""

    def __init__(self, s: Shape, bias: bool, norms: bool, parallel: bool, dropout: float) -> None:
        self.self_attn = StableLmAttention(s, bias, norms)
        self.mlp = GatedMLP(s.hidden, s.intermediate, act=s.act)
        self.input_layernorm = LayerNorm(s.hidden)
        self.post_attention_layernorm = None if parallel else LayerNorm(s.hidden)
        self._dropout = dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        attended = self.self_attn(t, hidden, call)
        if self.post_attention_layernorm is None:
            fed = ops.dropout(t, self.mlp(t, hidden), self._dropout, "residual dropout")
            return ops.add(
                t, ops.add(t, residual, attended, "residual plus attention"), fed, "residual stream after the layer"
            )
        residual = ops.add(t, residual, attended, "residual stream after attention")
        fed = ops.dropout(t, self.mlp(t, self.post_attention_layernorm(t, residual)), self._dropout, "residual dropout")
        return ops.add(t, residual, fed, "residual stream after the layer")


class StableLm(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=32, rotary=0.25)
        bias, norms = config.flag("use_qkv_bias", False), config.flag("qk_layernorm", False)
        parallel, dropout = config.flag("use_parallel_residual", False), config.number("hidden_dropout", 0.0, 0, 1)
        self.assemble(s, lambda _: StableLmLayer(s, bias, norms, parallel, dropout), s.windows, norm=LayerNorm)

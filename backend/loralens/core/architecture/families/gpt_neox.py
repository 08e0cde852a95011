"""GPT-NeoX and Pythia: parallel attention and MLP on norms of their own, q, k, v in one matrix, partial rotary.

Source: transformers 5.23, models/gpt_neox/modeling_gpt_neox.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm, PlainMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames, SelfAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class GPTNeoXAttention(SelfAttention):
    """Query, key and value are chunks of one result."""

    heads_first = True
    mask = "full"

    def __init__(self, s: Shape, bias: bool) -> None:
        self.query_key_value = Linear(s.hidden, 3 * s.hidden, bias, name="attention query, key and value")
        self.dense = Linear(s.hidden, s.hidden, bias, name="attention output projection")
        self.s = s

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three chunks by head."""
        width = self.s.head_dim
        q, k, v = ops.split(t, self.query_key_value(t, x).view(3 * width), [width] * 3, "attention: q, k, v")
        return q, k, v

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary on a part of query and key."""
        return rotate_part(t, q, k, call.shared["rotary"], self.s.rotated, pass_empty=True)

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """The output projection."""
        out: Tensor = self.dense(t, x)
        return out


class GPTNeoXLayer(Module):
    """Parallel (or, for a few models, sequential) residual branches."""

    def __init__(self, s: Shape, bias: bool, parallel: bool, dropout: float) -> None:
        self.input_layernorm = LayerNorm(s.hidden)
        self.post_attention_layernorm = LayerNorm(s.hidden)
        self.attention = GPTNeoXAttention(s, bias)
        self.mlp = PlainMLP(s.hidden, s.intermediate, ("dense_h_to_4h", "dense_4h_to_h"), s.act)
        self._parallel = parallel
        self._dropout = dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        attended = self.attention(t, self.input_layernorm(t, hidden), call)
        attended = ops.dropout(t, attended, self._dropout, "residual dropout")
        if self._parallel:
            fed = self.mlp(t, self.post_attention_layernorm(t, hidden))
            fed = ops.dropout(t, fed, self._dropout, "residual dropout")
            return ops.add(
                t, ops.add(t, fed, attended, "mlp plus attention"), hidden, "residual stream after the layer"
            )
        attended = ops.add(t, attended, hidden, "residual stream after attention")
        fed = self.mlp(t, self.post_attention_layernorm(t, attended))
        fed = ops.dropout(t, fed, self._dropout, "residual dropout")
        return ops.add(t, fed, attended, "residual stream after the layer")


class GPTNeoX(CausalDecoder):
    """The causal language model."""

    default_targets = ("query_key_value",)
    last_apart = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, act="gelu", rotary=0.25)
        bias, parallel = config.flag("attention_bias", True), config.flag("use_parallel_residual", True)
        self.embedding_dropout = dropout = config.number("hidden_dropout", 0.0, 0, 1)
        names = PartNames("gpt_neox", "embed_in", "layers", "final_layer_norm")
        self.assemble(s, lambda _: GPTNeoXLayer(s, bias, parallel, dropout), s.windows, norm=LayerNorm, names=names)

"""Falcon: one key and value head (7b), grouped ones spread to all heads (40b, 180b), or alibi (rw-1b).

Source: transformers 5.23, models/falcon/modeling_falcon.py.
"""

from __future__ import annotations

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import LayerNorm, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import causal_mask
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.attention import Attention
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class FalconLinear(Linear):
    """A subclass of the linear layer: bitsandbytes leaves it as it is (`type(module) is nn.Linear`)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False, *, name: str = "") -> None:
        super().__init__(in_features, out_features, bias, name=name)
        self.packable = False


class FalconAttention(Module):
    """Query, keys and values in one matrix; one boolean mask for all layers, always."""

    def __init__(self, s: Shape, new: bool, bias: bool) -> None:
        self.query_key_value = FalconLinear(
            s.hidden, s.hidden + 2 * s.kv_heads * s.head_dim, bias, name="attention query, key and value"
        )
        self.dense = FalconLinear(s.hidden, s.hidden, bias, name="attention output projection")
        self._s, self._new = s, new

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self._s, self._s.head_dim
        fused = self.query_key_value(t, x)
        heads = s.heads if self._new else s.kv_heads
        q = ops.slice_last(t, fused, s.hidden, "attention: query").view(width)
        k, v = (ops.gather(t, fused, s.kv_heads * width, f"attention: {name}").view(width) for name in ("key", "value"))
        if self._new:
            k, v = (
                ops.copy(t, x, f"attention: {name} for all heads", x.numel * (s.heads // s.kv_heads))
                for x, name in ((k, "key"), (v, "value"))
            )
        tables = call.shared["rotary"]
        q, k = rotate(t, q, tables, "attention query"), rotate(t, k, tables, "attention key")
        kernel = Attention(s.heads, heads, width, width, call.attention, repeats=False, softmax_dtype=x.dtype)
        out = kernel(t, q, k, v, call.masks["full"])
        result: Tensor = self.dense(t, out.view(s.hidden))
        return result


class FalconMLP(Module):
    """Two linear layers."""

    def __init__(self, s: Shape, bias: bool) -> None:
        self.dense_h_to_4h = FalconLinear(s.hidden, s.intermediate, bias, name="mlp up")
        self.dense_4h_to_h = FalconLinear(s.intermediate, s.hidden, bias, name="mlp down")
        self._act = s.act

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        x = activation(t, self.dense_h_to_4h(t, x), self._act, "mlp: activated")
        out: Tensor = self.dense_4h_to_h(t, x)
        return out


class FalconLayer(Module):
    """Attention and MLP side by side, on one or two layer norms."""

    def __init__(self, s: Shape, new: bool, norms: int, bias: bool, dropout: float) -> None:
        self.self_attention = FalconAttention(s, new, bias)
        self.mlp = FalconMLP(s, bias)
        for name in ("ln_attn", "ln_mlp") if norms == 2 else ("input_layernorm",):
            setattr(self, name, LayerNorm(s.hidden))
        self._two, self._dropout = norms == 2, dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        normed = (self.ln_attn if self._two else self.input_layernorm)(t, hidden)
        for_mlp = self.ln_mlp(t, hidden) if self._two else normed
        attended = self.self_attention(t, normed, call)
        fed = ops.add_in_place(t, self.mlp(t, for_mlp), attended)
        fed = ops.dropout(t, fed, self._dropout, "residual dropout")
        return ops.add(t, residual, fed, "residual stream after the layer")


class Falcon(CausalDecoder):
    """The causal language model."""

    default_targets = ("query_key_value",)

    def __init__(self, config: Config) -> None:
        width = config.integer("hidden_size")
        inner = config.integer("ffn_hidden_size", default=4 * width)
        s = Shape.read(config, tied=True, intermediate=inner, act="gelu")
        new, single = config.flag("new_decoder_architecture", False), config.flag("multi_query", True)
        if not config.flag("parallel_attn", True) or config.flag("alibi", False):
            raise UnsupportedArchitecture(
                "Falcon with alibi or sequential branches (falcon-rw) is not modelled",
                field="config.alibi",
                hint="the 7b, 40b and 180b models are",
            )
        heads = config.integer("num_kv_heads", "n_head_kv", default=s.heads)
        config.divides("num_kv_heads", s.heads, heads)
        s = s.with_kv_heads(heads if new else 1 if single else s.heads)
        norms = config.integer("num_ln_in_parallel_attn", default=2 if new else 1, high=2) if new else 1
        bias, dropout = config.flag("bias", False), config.number("hidden_dropout", 0.0, 0, 1)
        names = PartNames("transformer", "word_embeddings", "h", "ln_f")
        self.assemble(s, lambda _: FalconLayer(s, new, norms, bias, dropout), s.windows, norm=LayerNorm, names=names)

    def masks(self, t: Tape, call: Call) -> None:
        """A boolean mask even where causality alone would do."""
        call.masks["full"] = causal_mask(t, call, always=True)

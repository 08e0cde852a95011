"""The layers of BART and its successors: self-attention, cross-attention in the decoder, MLP; norms behind or before each branch.

Source: transformers 5.23, models/{bart,mbart,pegasus,m2m_100}/modeling_*.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from loralens.core.architecture.activations import activation, known
from loralens.core.architecture.blocks import Attention, LayerNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


@dataclass(frozen=True, slots=True)
class Widths:
    """What the config says of every layer. `first`: norms come before the branches."""

    hidden: int
    act: str
    dropout: float
    attention_dropout: float
    activation_dropout: float
    first: bool
    cuts: bool  # an encoder layer's float16 result to its range

    @staticmethod
    def read(config: Config, act: str, attention_dropout: float, *, first: bool) -> Widths:
        """Read a config, with the family's defaults."""
        return Widths(
            config.integer("d_model", "hidden_size", default=1024),
            known(config.text("activation_function", act), "config.activation_function"),
            config.number("dropout", 0.1, 0, 1),
            config.number("attention_dropout", attention_dropout, 0, 1),
            config.number("activation_dropout", 0.0, 0, 1),
            first,
            first,
        )


class BartAttention(Module):
    """Four projections with biases around one kernel."""

    def __init__(self, hidden: int, heads: int, dropout: float, *, causal: bool) -> None:
        for name, label in (("k", "key"), ("v", "value"), ("q", "query")):
            setattr(self, f"{name}_proj", Linear(hidden, hidden, True, name=f"attention {label}"))
        self.out_proj = Linear(hidden, hidden, True, name="attention output projection")
        self._heads, self._width, self._dropout, self._causal = heads, hidden // heads, dropout, causal

    def forward(self, t: Tape, x: Tensor, call: Call, mask: Tensor | None, seen: Tensor) -> Tensor:
        """Shapes: x (rows, hidden) to the same; `seen` is what key and value are made of."""
        width = self._width
        q = self.q_proj(t, x).view(width)
        k, v = self.k_proj(t, seen).view(width), self.v_proj(t, seen).view(width)
        kernel = Attention(
            self._heads,
            self._heads,
            width,
            width,
            call.attention,
            self._dropout,
            softmax_dtype=None,
            returns_weights=True,
            causal=self._causal,
        )
        out: Tensor = self.out_proj(t, kernel(t, q, k, v, mask).view(self._heads * width))
        return out


class BartLayer(Module):
    """Encoder layer, or decoder layer with cross-attention."""

    def __init__(self, w: Widths, intermediate: int, heads: int, decodes: bool) -> None:
        hidden = w.hidden
        self.self_attn = BartAttention(hidden, heads, w.attention_dropout, causal=decodes)
        self.self_attn_layer_norm = LayerNorm(hidden)
        if decodes:
            self.encoder_attn = BartAttention(hidden, heads, w.attention_dropout, causal=False)
            self.encoder_attn_layer_norm = LayerNorm(hidden)
        self.fc1 = Linear(hidden, intermediate, True, name="mlp up")
        self.fc2 = Linear(intermediate, hidden, True, name="mlp down")
        self.final_layer_norm = LayerNorm(hidden)
        self._w, self._decodes = w, decodes

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        hidden = self._attend(t, hidden, call, "self_attn", call.masks["full"], None)
        weights = t.handed.take_weights()
        if self._decodes:
            hidden = self._attend(t, hidden, call, "encoder_attn", call.masks["cross"], call.shared["encoder"])
            weights = t.handed.take_weights()
        t.local(weights)
        residual, w = hidden, self._w
        hidden = self.final_layer_norm(t, hidden) if w.first else hidden
        hidden = activation(t, self.fc1(t, hidden), w.act, "mlp: activated")
        hidden = ops.dropout(t, hidden, w.activation_dropout, "mlp: dropout")
        hidden = self.fc2(t, hidden)
        hidden = ops.dropout(t, hidden, w.dropout, "residual dropout")
        hidden = ops.add(t, residual, hidden, "residual stream after the layer")
        if w.cuts and not self._decodes and hidden.dtype == "float16":
            hidden = ops.clamp(t, hidden, "residual stream, clamped")
        return hidden if w.first else self.final_layer_norm(t, hidden)

    def _attend(
        self, t: Tape, hidden: Tensor, call: Call, name: str, mask: Tensor | None, encoded: Tensor | None
    ) -> Tensor:
        attention, norm = getattr(self, name), getattr(self, f"{name}_layer_norm")
        residual = hidden
        hidden = norm(t, hidden) if self._w.first else hidden
        hidden = attention(t, hidden, call, mask, hidden if encoded is None else encoded)
        hidden = ops.dropout(t, hidden, self._w.dropout, "residual dropout")
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        return hidden if self._w.first else norm(t, hidden)

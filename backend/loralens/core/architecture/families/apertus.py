"""Apertus: Llama with norms on query and key, and a plain MLP whose activation has two trained numbers (xIELU).

Source: transformers 5.23, models/apertus/modeling_apertus.py; activations.py, `XIELUActivation`, whose Python version is what runs
unless the xielu package is installed.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.families.llama import NormedAttention
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import expm1, minimum, softplus, where
from loralens.core.tape.tape import Tape


class LateNormedAttention(NormedAttention):
    """Query, key and value are projected before the first two are normed."""

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, then norms."""
        q, k, v = SelfAttention.project(self, t, x)
        q = self.q_norm(t, q)
        k = self.k_norm(t, k)
        return q, k, v


class XIELU(Module):
    """`alpha_p * x * x + beta * x` above zero, `(expm1(min(x, eps)) - x) * alpha_n + beta * x` below."""

    def __init__(self) -> None:
        self.alpha_p = Parameter((1,))
        self.alpha_n = Parameter((1,))

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: any to the same."""
        positive = softplus(t, t.parameter(self.alpha_p), "xIELU: alpha_p")
        negative = ops.shift(t, softplus(t, t.parameter(self.alpha_n), "xIELU: alpha_n"), "xIELU: alpha_n + beta")
        above = t.new(x.numel, "bool", x.width, "xIELU: where x is above zero")
        scaled = ops.mul(t, x, positive, "xIELU: alpha_p * x")
        quadratic = ops.mul(t, scaled, x, "xIELU: alpha_p * x * x")
        t.end(scaled)
        first = ops.add(t, quadratic, ops.scale(t, x, "xIELU: beta * x"), "xIELU: upper branch")
        t.end(quadratic)
        least = minimum(t, x, "xIELU: min(x, eps)")
        exponential = expm1(t, least, "xIELU: expm1")
        t.end(least)
        difference = ops.sub(t, exponential, x, "xIELU: expm1 - x")
        t.end(exponential)
        weighted = ops.mul(t, difference, negative, "xIELU: alpha_n * (expm1 - x)")
        t.end(difference)
        second = ops.add(t, weighted, ops.scale(t, x, "xIELU: beta * x"), "xIELU: lower branch")
        t.end(weighted)
        return where(t, above, first, second, "mlp: activated")


class ApertusMLP(Module):
    """`down(xielu(up(x)))`."""

    def __init__(self, s: Shape) -> None:
        self.up_proj = Linear(s.hidden, s.intermediate, name="mlp up")
        self.down_proj = Linear(s.intermediate, s.hidden, name="mlp down")
        self.act_fn = XIELU()

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        return self.down_proj(t, self.act_fn(t, self.up_proj(t, x)))


class ApertusLayer(Module):
    """Llama's layer, with norms of other names."""

    def __init__(self, s: Shape, bias: bool) -> None:
        self.self_attn = LateNormedAttention(s, bias=bias, output_bias=bias)
        self.mlp = ApertusMLP(s)
        self.attention_layernorm = RMSNorm(s.hidden)
        self.feedforward_layernorm = RMSNorm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.attention_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.feedforward_layernorm(t, hidden)
        hidden = self.mlp(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Apertus(CausalDecoder):
    """The causal language model."""

    def __init__(self, config: Config) -> None:
        if config.text("hidden_act", "xielu") != "xielu":
            raise UnsupportedArchitecture("Apertus without xIELU is not modelled", field="config.hidden_act")
        s = Shape.read(config.over({"hidden_act": "silu"}))
        bias = config.flag("attention_bias", False)
        self.assemble(s, lambda _: ApertusLayer(s, bias), s.windows)

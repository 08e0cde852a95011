"""Command-R and Command-R7B: parallel branches on one hand-made layer norm, rotary in float32, scaled logits.

Source: transformers 5.23, models/{cohere,cohere2}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.module import Module
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.tape import Tape


class CohereNorm(Module):
    """Mean and variance in float32, operator by operator; no bias. `heads` norms share no weights."""

    def __init__(self, width: int, heads: int = 0) -> None:
        self.weight = Parameter((heads, width) if heads else (width,))

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        dtype = x.dtype
        x = ops.cast(t, x, "float32", "norm: input in float32")
        mean = ops.mean(t, x, "norm: mean")
        variance = ops.mean(t, ops.power(t, ops.sub(t, x, mean, "norm: x - mean"), "norm: squares"), "norm: variance")
        shifted = ops.shift(t, variance, "norm: variance + eps")
        centred = ops.sub(t, x, mean, "norm: x - mean")
        x = ops.mul(t, centred, ops.rsqrt(t, shifted, "norm: 1/std"), "norm: normalized in float32")
        t.end(centred, shifted)
        x = ops.mul(
            t, x, ops.cast(t, t.parameter(self.weight), "float32", "norm: weight in float32"), "norm: output in float32"
        )
        return ops.cast(t, x, dtype, "norm: output")


class CohereAttention(SelfAttention):
    """Rotary by pairs, computed in float32; without it where a layer sees everything (Command-R7B)."""

    def __init__(self, s: Shape, window: int | None, *, bias: bool, norms: bool, turns: bool) -> None:
        super().__init__(s, window, bias=bias, output_bias=bias)
        if norms:
            self.q_norm = CohereNorm(s.head_dim, s.heads)
            self.k_norm = CohereNorm(s.head_dim, s.kv_heads)
        self._norms, self._turns = norms, turns

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, then norms."""
        q, k, v = super().project(t, x)
        if self._norms:
            q = self.q_norm(t, q)
            k = self.k_norm(t, k)
        return q, k, v

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary in float32."""
        if not self._turns:
            return q, k
        q32, k32 = (
            ops.cast(t, q, "float32", "attention query in float32"),
            ops.cast(t, k, "float32", "attention key in float32"),
        )
        tables = call.shared["rotary"]
        q_out, k_out = rotate(t, q32, tables, "attention query"), rotate(t, k32, tables, "attention key")
        return ops.cast(t, q_out, q.dtype, "attention query, cast back"), ops.cast(
            t, k_out, k.dtype, "attention key, cast back"
        )


class CohereLayer(Module):
    """Parallel attention and MLP."""

    def __init__(self, s: Shape, attention: CohereAttention) -> None:
        self.self_attn = attention
        self.mlp = GatedMLP(s.hidden, s.intermediate, act=s.act)
        self.input_layernorm = CohereNorm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        attended = self.self_attn(t, hidden, call)
        fed = self.mlp(t, hidden)
        return ops.add(
            t, ops.add(t, residual, attended, "residual plus attention"), fed, "residual stream after the layer"
        )


class Cohere(CausalDecoder):
    """Command-R."""

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True)
        bias, norms = config.flag("attention_bias", False), config.flag("use_qk_norm", False)
        self.assemble(
            s,
            lambda _: CohereLayer(s, CohereAttention(s, None, bias=bias, norms=norms, turns=True)),
            s.windows,
            norm=CohereNorm,
        )

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """Times `logit_scale`."""
        return ops.scale(t, super().logits(t, hidden), "logits, scaled")


class Cohere2(Cohere):
    """Command-R7B: three sliding layers with rotary embedding, then a full one without."""

    both_masks = True

    def __init__(self, config: Config) -> None:
        s = Shape.read(config.over({"head_dim": None}), tied=True)  # its config always divides
        window = config.integer("sliding_window", default=4096, high=2**31)
        every = config.integer("sliding_window_pattern", default=4, high=2**20)
        default = tuple(None if (index + 1) % every == 0 else window for index in range(s.layers))
        s = s.with_windows(by_layer_types(config, s.layers, default, window))
        bias = config.flag("attention_bias", False)
        self.assemble(
            s,
            lambda window: CohereLayer(s, CohereAttention(s, window, bias=bias, norms=False, turns=window is not None)),
            s.windows,
            norm=CohereNorm,
        )

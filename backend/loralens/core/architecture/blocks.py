"""Building blocks that several families share: norms, rotary embedding, attention kernels, gated MLP.

Each is the sequence of operators that the transformers 5.23 code runs, in its order and with its local variables, so
that tensors live as long as there.
"""

from __future__ import annotations

from dataclasses import dataclass

from loralens.core.architecture.activations import activation
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import derivatives, ops
from loralens.core.tape.attention import Attention
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE, SEQUENCE, TOKENS
from loralens.core.tape.tape import Tape


class RMSNorm(Module):
    """Root-mean-square norm, computed in float32 and cast back before the weight (LlamaRMSNorm)."""

    def __init__(self, width: int) -> None:
        self.weight = Parameter((width,))

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        if t.kernels.fused_norms or t.kernels.compiled:
            return fused_rms_norm(t, x, t.parameter(self.weight))
        dtype = x.dtype
        x = ops.cast(t, x, "float32", "norm: input in float32")
        x = self.normalize(t, x)
        return self._weighted(t, x, dtype)

    def _weighted(self, t: Tape, x: Tensor, dtype: str) -> Tensor:
        return ops.mul(t, ops.cast(t, x, dtype, "norm: normalized"), t.parameter(self.weight), "norm: output")

    @staticmethod
    def normalize(t: Tape, x: Tensor) -> Tensor:
        squared = ops.power(t, x, "norm: squares")
        variance = ops.mean(t, squared, "norm: mean")
        t.end(squared)
        shifted = ops.shift(t, variance, "norm: variance + eps")
        reciprocal = ops.rsqrt(t, shifted, "norm: 1/rms")
        return ops.mul(t, x, reciprocal, "norm: normalized in float32")


class LateCastRMSNorm(RMSNorm):
    """Multiplies with the weight in float32 and casts last (OLMo-2, GLM's successors)."""

    def _weighted(self, t: Tape, x: Tensor, dtype: str) -> Tensor:
        x = ops.mul(t, x, t.parameter(self.weight), "norm: output in float32")
        return ops.cast(t, x, dtype, "norm: output")


class GemmaRMSNorm(RMSNorm):
    """Multiplies with 1 + weight, in float32, and casts last; the product takes the normalized values' name."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        if t.kernels.fused_norms or t.kernels.compiled:
            return super().forward(t, x)
        return self._weighted(t, self._normalized(t, x), x.dtype)

    def _normalized(self, t: Tape, x: Tensor) -> Tensor:
        x = ops.cast(t, x, "float32", "norm: input in float32")
        return self.normalize(t, x)

    def _weighted(self, t: Tape, x: Tensor, dtype: str) -> Tensor:
        weight = ops.shift(
            t, ops.cast(t, t.parameter(self.weight), "float32", "norm: weight in float32"), "norm: 1 + weight"
        )
        x = ops.mul(t, x, weight, "norm: output in float32")
        return ops.cast(t, x, dtype, "norm: output")


def fused_rms_norm(t: Tape, x: Tensor, weight: Tensor) -> Tensor:
    """One Triton kernel, written or compiled: keeps its input and 1/rms per row, in place of float32 copies.

    Source: Unsloth kernels/rms_layernorm.py, Liger-Kernel ops/rms_norm.py.
    """
    out = t.new(x.numel, x.dtype, x.width, "norm: output")
    reciprocal = t.new(ops.divide(x.numel, x.width), "float32", 1, "norm: 1/rms")
    numel, dtype, width, trains = x.numel, x.dtype, x.width, weight.node is not None
    size = (weight.numel, weight.dtype, weight.width)

    def apply(g: Tensor) -> list[Tensor | None]:
        grad_weight = t.new(*size, "gradient: norm weight", "temporaries") if trains else None
        return [t.new(numel, dtype, width, "gradient: norm", "temporaries"), grad_weight]

    t.record("norm (fused)", [out], [x, weight], [x, reciprocal], apply)
    return out


class LayerNorm(Module):
    """torch's layer norm: one kernel that keeps its input, mean and 1/std; float32 under autocast."""

    def __init__(self, width: int, bias: bool = True, *, affine: bool = True) -> None:
        self.weight = Parameter((width,)) if affine else None
        self.bias = Parameter((width,)) if bias and affine else None

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        weight = None if self.weight is None else t.parameter(self.weight)
        bias = None if self.bias is None else t.parameter(self.bias)
        if t.autocast is not None:
            x = ops.cast(t, x, "float32", "norm: input in float32")
            weight = None if weight is None else ops.cast(t, weight, "float32", "norm: weight in float32")
            bias = None if bias is None else ops.cast(t, bias, "float32", "norm: bias in float32")
        return layer_norm(t, x, weight, bias)


def layer_norm(t: Tape, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """The kernel alone, in the dtype of x. Shapes: x (rows, width), weight and bias (width)."""
    out = t.new(x.numel, x.dtype, x.width, "norm: output")
    statistics = [t.new(ops.divide(x.numel, x.width), "float32", 1, f"norm: {name}") for name in ("mean", "1/std")]
    sizes = [None if p is None else (p.numel, p.dtype, p.width) for p in (x, weight, bias)]
    wants = [p is not None and p.node is not None for p in (x, weight, bias)]

    def apply(g: Tensor) -> list[Tensor | None]:
        return [
            t.new(*size, "gradient: norm", "temporaries") if wanted and size else None
            for size, wanted in zip(sizes, wants, strict=True)
        ]

    mean, deviation = statistics
    saved = derivatives.LAYER_NORM.kept(input=x, result1=mean, result2=deviation, weight=weight, bias=bias)
    t.record("norm", [out], [x, weight, bias], saved, apply)
    return out


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary position embedding: cos and sin for every position, in the residual stream's dtype unless kept in float32."""

    head_dim: int  # number of rotated dimensions
    float32: bool = False

    def tables(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, (sequence, head_dim) each."""
        width = self.head_dim
        with t.temporary(SEQUENCE * (width // 2), "float32", width // 2, "rotary: angles"):
            angles = t.new(SEQUENCE * width, "float32", width, "rotary: angles")

        def scaled(name: str) -> Tensor:
            with t.temporary(SEQUENCE * width, "float32", width, name):
                return t.new(SEQUENCE * width, "float32", width, name)

        cos, sin = scaled("rotary: cos"), scaled("rotary: sin")
        if self.float32:
            t.end(angles)
            return cos, sin
        tables = ops.cast(t, cos, x.dtype, "rotary: cos"), ops.cast(t, sin, x.dtype, "rotary: sin")
        t.end(angles)
        return tables


def rotate(t: Tape, x: Tensor, tables: tuple[Tensor, Tensor], label: str, rotated: int | None = None) -> Tensor:
    """`x * cos + rotate_half(x) * sin`; with `rotated` only that many of the last dimensions' values turn."""
    cos, sin = tables
    direct = ops.mul(t, x, cos, f"{label}: x*cos")
    turned = ops.mul(t, rotate_half(t, x, label), sin, f"{label}: half*sin")
    return ops.add(t, direct, turned, f"{label} after rotary")


def rotate_half(t: Tape, x: Tensor, label: str) -> Tensor:
    """The second half negated, then the first. Shapes: any to the same."""
    assert isinstance(x.width, int)
    first, second = (ops.slice_last(t, x, x.width // 2, f"{label}: half") for _ in range(2))
    negated = ops.scale(t, second, f"{label}: -half")
    return ops.cat(t, [negated, first], x.width, f"{label}: rotated half")


class GatedMLP(Module):
    """`down(act(gate(x)) * up(x))`: SwiGLU and its relatives."""

    def __init__(self, hidden: int, intermediate: int, bias: bool = False, act: str = "silu") -> None:
        self._act = act
        self.gate_proj = Linear(hidden, intermediate, bias, name="mlp gate")
        self.up_proj = Linear(hidden, intermediate, bias, name="mlp up")
        self.down_proj = Linear(intermediate, hidden, bias, name="mlp down")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        return self.down_proj(
            t,
            ops.mul(
                t,
                activation(t, self.gate_proj(t, x), self._act, "mlp: activated gate"),
                self.up_proj(t, x),
                "mlp: product",
            ),
        )


class PlainMLP(Module):
    """`second(act(first(x)))` under a family's own names for the two linear layers."""

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        names: tuple[str, str],
        act: str,
        bias: bool = True,
        dropout: float = 0.0,
        transposed: bool = False,
    ) -> None:
        self._names = names
        self._act = act
        self._dropout = dropout
        setattr(self, names[0], Linear(hidden, intermediate, bias, name="mlp up", transposed=transposed))
        setattr(self, names[1], Linear(intermediate, hidden, bias, name="mlp down", transposed=transposed))

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        first, second = (getattr(self, name) for name in self._names)
        x = first(t, x)
        x = activation(t, x, self._act, "mlp: activated")
        x = second(t, x)
        return ops.dropout(t, x, self._dropout, "mlp: dropout")


class FusedGatedMLP(Module):
    """Gate and up in one matrix, cut in two: `down(up * act(gate))` (Phi-3, GLM)."""

    def __init__(self, hidden: int, intermediate: int, act: str) -> None:
        self._act = act
        self.gate_up_proj = Linear(hidden, 2 * intermediate, name="mlp gate and up")
        self.down_proj = Linear(intermediate, hidden, name="mlp down")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        up = self.gate_up_proj(t, x)
        assert isinstance(up.width, int)
        gate, up = ops.split(t, up, [up.width // 2] * 2, "mlp: gate and up")
        up = ops.mul(t, up, activation(t, gate, self._act, "mlp: activated gate"), "mlp: product")
        out: Tensor = self.down_proj(t, up)
        return out


__all__ = [
    "ONE",
    "TOKENS",
    "Attention",
    "FusedGatedMLP",
    "GatedMLP",
    "GemmaRMSNorm",
    "LateCastRMSNorm",
    "LayerNorm",
    "PlainMLP",
    "RMSNorm",
    "Rotary",
    "rotate",
]

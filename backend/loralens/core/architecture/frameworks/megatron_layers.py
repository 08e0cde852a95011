"""One layer of Megatron Core as TransformerEngine runs it on a tensor-parallel rank: two norms with products behind them, two row products.

Norm and the product behind it are one operator, which keeps the norm's input and output; queries, keys and values come out
of one product; bias, dropout and residual are one kernel. Weights' gradients go straight into the float32 buffers where
the strategy is Megatron's own (gradient accumulation fusion).

Sources: NVIDIA/Megatron-LM d98e8a64 megatron/core: transformer/attention.py (`get_query_key_value_tensors`), transformer/mlp.py,
fusions/fused_bias_gelu.py, fused_bias_swiglu.py, fused_bias_dropout.py (compiled: the mask is kept, one byte each),
activations.py; NVIDIA/TransformerEngine d0067d0d transformer_engine/pytorch: module/layernorm_linear.py (of the norm's output a
rank keeps its part of the sequence, and gathers it again), attention/dot_product_attention/backends.py (FlashAttention takes
copies by sample and gives its result back by position; cuDNN's kernel takes all as it is).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loralens.core.architecture.module import Module
from loralens.core.tape import ops
from loralens.core.tape.attention import Attention
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import Size
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.shape import Shape


@dataclass(frozen=True, slots=True)
class CoreStyle:
    """What Megatron's arguments say of a layer. `act`: of the MLP; `rotary`: the part of a head that turns, 0: learned positions."""

    rms: bool
    act: str  # swiglu | gelu | squared_relu
    bias: bool
    rotary: float
    qkv_bias: bool = False


@dataclass(frozen=True, slots=True)
class RankShare:
    """Of how many ranks this is one. `sequence`: the residual stream is cut too."""

    tp: int = 1
    sequence: bool = False

    @property
    def stream(self) -> int:
        """Into how many parts the residual stream is cut."""
        return self.tp if self.sequence else 1


class NormLinear(Module):
    """Norm and column-parallel product in one (`TELayerNormColumnParallelLinear`). Shapes: (rows, inside) to (rows, out)."""

    def __init__(self, inside: int, out: int, share: RankShare, style: CoreStyle, *, bias: bool, name: str) -> None:
        self.layer_norm_weight = Parameter((inside,))
        self.layer_norm_bias = None if style.rms else Parameter((inside,))
        self.weight = Parameter((out // share.tp, inside))
        self.bias = Parameter((out // share.tp,)) if bias else None
        self.share, self.out, self.label, self.statistics = share, out // share.tp, name, 1 if style.rms else 2

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: x (this rank's rows, inside)."""
        inside = self.weight.shape[-1]
        assert isinstance(inside, int)
        given = [self.layer_norm_weight, self.layer_norm_bias, self.weight, self.bias]
        weights = [None if parameter is None else t.parameter(parameter) for parameter in given]
        rows = x.numel.scaled(1, inside)
        normed = t.new(x.numel, x.dtype, x.width, f"{self.label}: norm's output")
        kept = [t.new(rows, "float32", 1, f"{self.label}: norm's statistics") for _ in range(self.statistics)]
        whole = gathered(t, x, self.share, self.label)
        out, _ = t.result(x.numel.scaled(self.share.stream * self.out, inside), x.dtype, self.out, self.label)
        t.end(whole)
        size = (x.numel, x.dtype, x.width)
        wholly = (x.numel * self.share.stream, *size[1:])
        number = t.layer

        def apply(g: Tensor) -> Sequence[Tensor | None]:
            again = gathered(t, g, self.share, self.label, wholly, "temporaries")
            inner = t.new(*wholly, f"gradient: {self.label} input", "temporaries")
            found = weight_gradients(t, weights[2:], self.label)
            own = reduced(t, inner, self.share, size, self.label, number)
            t.end(again)
            grown = t.new(*size, f"gradient: {self.label} norm", "temporaries")
            t.end(own)
            return [grown, *weight_gradients(t, weights[:2], self.label), *found]

        t.record(self.label, [out], [x, *weights], [x, normed, *kept], apply)
        return out


class RowLinear(Module):
    """Row-parallel product: a partial sum, reduced (`TERowParallelLinear`). Its bias is added with the residual."""

    def __init__(self, inside: int, out: int, share: RankShare, *, bias: bool, name: str) -> None:
        self.weight = Parameter((out, inside // share.tp))
        self.bias = Parameter((out,)) if bias else None
        self.share, self.out, self.label = share, out, name

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: x (all rows, this rank's part of inside) to (this rank's rows, out)."""
        weights = [t.parameter(self.weight)]
        whole = (ops.divide(x.numel, x.width) * self.out, x.dtype, self.out)
        own = (whole[0] // self.share.stream, *whole[1:])
        out = reduced(t, t.new(*whole, self.label), self.share, own, self.label, t.layer)
        size, number = (x.numel, x.dtype, x.width), t.layer

        def apply(g: Tensor) -> Sequence[Tensor | None]:
            again = gathered(t, g, self.share, self.label, whole, "temporaries", number)
            inner = t.new(*size, f"gradient: {self.label} input", "temporaries")
            t.end(again)
            return [inner, *weight_gradients(t, weights, self.label)]

        t.record(self.label, [out], [x, *weights], [x], apply)
        return out


def weight_gradients(t: Tape, weights: Sequence[Tensor | None], label: str) -> list[Tensor | None]:
    """None where a kernel adds them to the float32 buffers by itself."""
    if t.on_gradient is not None:
        return [None] * len(weights)
    return [
        None if weight is None or weight.node is None else t.new(weight.numel, weight.dtype, weight.width, label, "gradients")
        for weight in weights
    ]  # fmt: skip


def gathered(
    t: Tape,
    x: Tensor,
    share: RankShare,
    label: str,
    whole: tuple[Size, str, Any] | None = None,
    section: str | None = None,
    number: int | None = None,
) -> Tensor | None:
    """All ranks' parts of the sequence; None where every rank has them."""
    if not share.sequence:
        return None
    numel, dtype, width = whole or (x.numel * share.tp, x.dtype, x.width)
    made = t.new(numel, dtype, width, f"{label}: gathered", section)
    t.traffic.sent("all_gather", numel * 2, "tp", t.layer if number is None else number)
    return made


def reduced(t: Tape, whole: Tensor, share: RankShare, own: tuple[Size, str, Any], label: str, number: int) -> Tensor:
    """The sum over ranks: in place, or this rank's part of the sequence."""
    if share.tp > 1:
        kind = "reduce_scatter" if share.sequence else "all_reduce"
        t.traffic.sent(kind, whole.numel * 2, "tp", number)
    if not share.sequence:
        return whole
    part = t.new(*own, f"{label}: this rank's part")
    t.end(whole)
    return part


class CoreAttention(Module):
    """Query, key and value from one product, one kernel, output product."""

    def __init__(self, s: Shape, share: RankShare, style: CoreStyle) -> None:
        width = s.head_dim
        bias = style.bias or style.qkv_bias
        self.linear_qkv = NormLinear(
            s.hidden, (s.heads + 2 * s.kv_heads) * width, share, style, bias=bias, name="attention query, key, value"
        )
        self.linear_proj = RowLinear(
            s.heads * width, s.hidden, share, bias=style.bias, name="attention output projection"
        )
        self.heads, self.groups, self.width = s.heads // share.tp, s.kv_heads // share.tp, width
        self.rotates, self.dropout = bool(style.rotary), s.attention_dropout

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (this rank's rows, hidden) to the same."""
        mixed = self.linear_qkv(t, x)
        q, k, v = self._parts(t, mixed)
        t.end(mixed)
        if self.rotates:
            q, k = (t.replace(part, _turned(t, part)) for part in (q, k))
        elif self.groups < self.heads:
            q = t.replace(q, ops.copy(t, q, "attention query, laid out"))
        if call.attention == "flash":
            q, k, v = (t.replace(part, ops.copy(t, part, "attention: by sample")) for part in (q, k, v))
        kernel = Attention(self.heads, self.groups, self.width, self.width, _kernel(call), self.dropout,
                           softmax_dtype=None)  # fmt: skip
        out = kernel(t, q, k, v)
        t.end(q, k, v)
        if call.attention == "flash":
            out = t.replace(out, ops.copy(t, out, "attention: result by position"))
        result: Tensor = self.linear_proj(t, out.view(self.heads * self.width))
        return result

    def _parts(self, t: Tape, mixed: Tensor) -> list[Tensor]:
        """Views of the one result; their gradients are joined."""
        rows = ops.divide(mixed.numel, mixed.width)
        widths = (self.heads * self.width, self.groups * self.width, self.groups * self.width)
        parts = [Tensor(mixed.storage, rows * width, mixed.dtype, width) for width in widths]
        size = (mixed.numel, mixed.dtype, mixed.width)
        t.record(
            "split", parts, [mixed], [], lambda *_: t.new(*size, "gradient: query, key, value joined", "temporaries")
        )
        return parts


def _kernel(call: Call) -> str:
    return "eager" if call.attention == "eager" else "flash"  # cuDNN's keeps what flash attention keeps


def _turned(t: Tape, x: Tensor) -> Tensor:
    """Rotary embedding, which keeps its tables alone."""
    return ops.scale(t, x, "attention: after rotary")


class CoreMLP(Module):
    """`fc2(act(fc1(norm(x))))`: the activation keeps its input."""

    def __init__(self, s: Shape, share: RankShare, style: CoreStyle) -> None:
        out = s.intermediate * (2 if style.act == "swiglu" else 1)
        self.linear_fc1 = NormLinear(s.hidden, out, share, style, bias=style.bias, name="mlp up")
        self.linear_fc2 = RowLinear(s.intermediate, s.hidden, share, bias=style.bias, name="mlp down")
        self.width = s.intermediate // share.tp

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (this rank's rows, hidden) to the same."""
        first = self.linear_fc1(t, x)
        size = (first.numel, first.dtype, first.width)
        active = t.new(ops.divide(first.numel, first.width) * self.width, first.dtype, self.width, "mlp: activated")
        t.record(
            "mlp: activation",
            [active],
            [first],
            [first],
            lambda _: t.new(*size, "gradient: mlp activation", "temporaries"),
        )
        t.end(first)
        out: Tensor = self.linear_fc2(t, active)
        return out


class CoreLayer(Module):
    """Pre-norm attention and MLP on a residual stream."""

    def __init__(self, s: Shape, share: RankShare, style: CoreStyle, dropout: float) -> None:
        self.self_attention = CoreAttention(s, share, style)
        self.mlp = CoreMLP(s, share, style)
        self.dropout = dropout

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (this rank's rows, hidden) to the same."""
        hidden = self._added(t, self.self_attention(t, hidden, call), hidden, "residual stream after attention")
        return self._added(t, self.mlp(t, hidden), hidden, "residual stream after the layer")

    def _added(self, t: Tape, x: Tensor, residual: Tensor, label: str) -> Tensor:
        """Bias, dropout and residual in one compiled kernel."""
        out = t.new(x.numel, x.dtype, x.width, label)
        mask = t.new(x.numel, "bool", 1, f"{label}: dropout mask") if self.dropout else None
        size = (x.numel, x.dtype, x.width)

        def apply(g: Tensor) -> Sequence[Tensor | None]:
            inner = t.new(*size, f"gradient: {label}, after dropout", "temporaries") if mask is not None else g.view()
            return [inner, g.view()]

        t.record(label, [out], [x, residual], [mask], apply)
        t.end(x)
        return out

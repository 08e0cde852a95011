"""Fused kernels of state-space and linear-attention layers: what their autograd functions allocate and keep.

Read in their code and not traced, since a trace runs no Triton. Workspaces that depend on the card's number of multiprocessors
count as one share (assumption).

Source: Dao-AILab/causal-conv1d 1.6.1, causal_conv1d_interface.py (`CausalConv1dFn`); fla-org/flash-linear-attention 0.5.2,
fla/ops/gated_delta_rule/{chunk,chunk_fwd,wy_fast}.py (`ChunkGatedDeltaRuleFunction`), fla/ops/common/{chunk_delta_h,chunk_o}.py,
fla/modules/l2norm.py; state-spaces/mamba 2.3.2, mamba_ssm/ops/triton/{ssd_combined,ssd_chunk_state,ssd_chunk_scan,
ssd_state_passing,ssd_bmm,layernorm_gated}.py (`MambaSplitConv1dScanCombinedFn`); transformers 5.23, which takes them where installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from loralens.core.errors import InvalidInput
from loralens.core.tape.cost import Costs
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import BATCH, TOKENS, Size
from loralens.core.tape.tape import Tape
from loralens.core.tape.work import product

if TYPE_CHECKING:
    from loralens.core.architecture.module import Linear

FUSED: Final = (
    "state-space and linear-attention layers run in fused kernels (flash-linear-attention 0.5, mamba-ssm 2.3, causal-conv1d 1.6): "
    "what they keep is computed from their code, not traced; of their time, what they move is counted"
)


class RuleSizes(Protocol):
    """Of a delta rule: heads of keys and of values, and their widths (`delta_rule.DeltaRule`)."""

    @property
    def key_heads(self) -> int: ...
    @property
    def value_heads(self) -> int: ...
    @property
    def key(self) -> int: ...
    @property
    def value(self) -> int: ...


class ScanSizes(Protocol):
    """Of a scan: see `chunk_scan.Scan`."""

    @property
    def heads(self) -> int: ...
    @property
    def inner(self) -> int: ...
    @property
    def state(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def chunk(self) -> int: ...


_CHUNK: Final = 64  # of the delta rule's kernel
_Part = tuple[Size, str, str]  # elements, dtype and name


def _made(t: Tape, parts: Sequence[_Part], section: str | None = None) -> list[Tensor]:
    return [t.new(numel, dtype, 1, label, section) for numel, dtype, label in parts]


def _size(x: Tensor) -> tuple[Size, str, int | Size]:
    return x.numel, x.dtype, x.width


def convolved(t: Tape, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A causal convolution with its activation; keeps its input. Shapes: x (rows, channels) to the same."""
    out = t.new(x.numel, x.dtype, x.width, "convolution")
    inputs = [x, weight, bias]
    wanted = [None if each is None or each.node is None else _size(each) for each in inputs]

    def apply(g: Tensor) -> list[Tensor | None]:
        return [None if size is None else t.new(*size, "gradient: convolution", "temporaries") for size in wanted]

    t.record("convolution", [out], inputs, [x], apply)
    return out


def gated_delta_rule(t: Tape, r: RuleSizes, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Chunks of 64 positions; their states are made again in backward.

    Shapes: q and k (rows, key heads * key), v (rows, value heads * value), g and beta (rows, value heads); like v.
    """
    dtype, label = q.dtype, "delta rule"
    keys, wide = TOKENS * (r.key_heads * r.key), TOKENS * (r.value_heads * r.key)
    values, heads = TOKENS * (r.value_heads * r.value), TOKENS * r.value_heads
    states = BATCH * (t.validity.steps("sequence_length", _CHUNK) * r.value_heads * r.key * r.value)
    lengths: _Part = (TOKENS * r.key_heads, "float32", f"{label}: 1/length")
    given = _made(t, [(keys, dtype, f"{label}: query and key, contiguous")] * 2)
    value, sums, inverse = _made(t, [(values, dtype, f"{label}: value, contiguous"),
                                     (heads, "float32", f"{label}: sums of decay"),
                                     (heads * _CHUNK, dtype, f"{label}: inverted systems")])  # fmt: skip
    normed = _made(t, [(keys, dtype, f"{label}: query and key, of length one"), lengths] * 2)
    again: list[_Part] = [
        (wide, dtype, f"{label}: keys that read the state"),
        (values, dtype, f"{label}: new values"),
        (states, dtype, f"{label}: states of the chunks"),
        (values, dtype, f"{label}: what is new"),
    ]
    held = _made(t, again)
    out = t.new(values, dtype, v.width, f"{label}: output")
    t.end(*held, *given)
    sizes = [(_size(each), each.node is not None) for each in (q, k, v, g, beta)]
    back: list[_Part] = [
        *again, (states, dtype, "states"), (values, dtype, "value"), (wide, dtype, "query, by head"),
        (wide, dtype, "key, by head"), (wide, dtype, "keys that read the state"), (wide, dtype, "key, second part"),
        (heads, "float32", "decay, parts"), (heads, "float32", "decay, second part"),
    ]  # fmt: skip

    def apply(_: Tensor) -> list[Tensor | None]:
        inside = _made(t, [(n, d, f"gradient: {label}: {name}") for n, d, name in back], "temporaries")
        found = [t.new(*size, f"gradient: {label}", "temporaries") if wants else None for size, wants in sizes]
        t.end(*inside)
        return found

    t.record(label, [out], [q, k, v, g, beta], [*normed, value, sums, beta, inverse], apply)
    return out


def scan_combined(
    t: Tape, s: ScanSizes, projected: Tensor, a: Tensor, own: Sequence[Tensor | None], out_proj: Linear, *, normed: bool
) -> Tensor:
    """Mamba 2 from behind its first projection to behind its last, as one function that makes again what it can.

    Args:
        t: the tape.
        s: the scan's sizes.
        projected: gate, input, B, C and step. Shape: (rows, 2 inner + 2 groups state + heads).
        a: -exp(A_log). Shape: (heads).
        own: the mixer's other parameters.
        out_proj: its weight is multiplied without calling the layer.
        normed: is there a gated norm? Else the gate alone.

    Raises:
        InvalidInput: `out_proj` has an adapter or is packed.
    """
    _plain(out_proj)
    dtype, label, width = projected.dtype, "scan", s.inner + 2 * s.groups * s.state
    chunks = t.validity.steps("sequence_length", s.chunk)
    rows, inner = BATCH * (chunks * s.chunk), TOKENS * s.inner
    states, pairs = BATCH * (chunks * s.inner * s.state), rows * (s.groups * s.chunk)
    convolution: _Part = (TOKENS * width, dtype, "convolution")
    steps: list[_Part] = [(rows * s.heads, "float32", f"{label}: step"), (rows * s.heads, "float32", f"{label}: sums")]
    inside = _made(t, [convolution, *steps])
    own_states = t.new(states, "float32", s.state, f"{label}: states of the chunks")
    inside += _made(t, [(states, dtype, f"{label}: states before the chunks"),
                        (BATCH * (s.inner * s.state), "float32", f"{label}: last state")])  # fmt: skip
    t.end(own_states)
    inside += _made(t, [(pairs, "float32", f"{label}: C B")])
    kept, other = _made(
        t, [(inner, dtype, f"{label}: output"), (inner, dtype, f"{label}: {'normed' if normed else 'gated'}")]
    )
    inverse = t.new(TOKENS * s.groups, "float32", 1, f"{label}: 1/rms") if normed else None
    weight = t.parameter(out_proj.weight)
    bias = None if out_proj.bias is None else t.parameter(out_proj.bias)
    casts = t.autocast is not None and weight.dtype != t.autocast
    copy = (
        t.new(weight.numel, t.autocast or dtype, weight.width, "autocast copies of frozen weights") if casts else None
    )
    out = t.new(TOKENS * out_proj.out_features, t.autocast or dtype, out_proj.out_features, "state space out")
    t.end(*inside, other)
    inputs = [projected, a, *own, weight, bias]
    wanted = [None if each is None or each.node is None else _size(each) for each in inputs]
    back: list[_Part] = [
        (inner, dtype, "output, again"), convolution, (TOKENS * width, dtype, "input, B and C"), (inner, dtype, "result"),
        (inner, dtype, "gate"), (TOKENS * s.heads, dtype, "step, again"), *steps, (pairs, "float32", "C B, again"),
        (states, dtype, "states"), (states, dtype, "states, again"), (rows * s.heads, "float32", "step"),
        (TOKENS * (s.groups * s.state), "float32", "B"), (TOKENS * (s.groups * s.state), "float32", "C"),
        (pairs, "float32", "C B"), (TOKENS * width, dtype, "convolution"),
    ]  # fmt: skip

    def apply(_: Tensor) -> list[Tensor | None]:
        given = wanted[0] and t.new(*wanted[0], f"gradient: {label}", "temporaries")
        held = _made(t, [(n, d, f"gradient: {label}: {name}") for n, d, name in back], "temporaries")
        rest = [size and t.new(*size, f"gradient: {label}", "temporaries") for size in wanted[1:]]
        t.end(*held)
        return [given, *rest]

    def costs() -> Costs:
        wants = projected.node is not None, weight.node is not None
        return product(out, kept, weight, inner.times(Size([2 * out_proj.out_features, *[0] * 8])), wants)

    t.record("state space", [out], inputs, [projected, kept, a, inverse, copy], apply, costs)
    return out


def _plain(layer: Linear) -> None:
    """Raises `InvalidInput` where the layer is more than its weight."""
    ways = "or take mixer_kernels=torch"
    if layer.adapter is not None:
        raise InvalidInput(
            "an adapter on out_proj gets no gradient in a fused scan, which takes its weight without calling the layer",
            field="lora.target_modules",
            hint=f"name other layers, {ways}",
        )
    if layer.weight.packing is not None:
        raise InvalidInput(
            "a fused scan multiplies with out_proj's weight itself, which a packed one does not allow",
            field="quantization.skip_modules",
            hint=f"try skip_modules=lm_head,out_proj, {ways}",
        )


def not_modelled(kernel: str) -> None:
    """Raises `InvalidInput`: this kernel is not modelled."""
    raise InvalidInput(
        f"the fused kernel {kernel} is not modelled", field="mixer_kernels", hint="try mixer_kernels=torch"
    )

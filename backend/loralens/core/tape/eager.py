"""Attention products that families compute by themselves, outside of PyTorch's kernels: GPT-J's, and those with sinks.

Source: transformers 5.23, models/{gptj,codegen,gpt_oss,mimo_v2_flash,deepseek_v4}/modeling_*.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralens.core.tape import derivatives, ops
from loralens.core.tape.size import SEQUENCE, TOKENS, TOKENS_BY_SEQUENCE

if TYPE_CHECKING:
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.size import Size
    from loralens.core.tape.tape import Tape


def product(
    t: Tape,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    heads: int,
    dropout: float,
    *,
    scaled_last: bool = False,
) -> Tensor:
    """GPT-J's attention: query and key in float32, softmax in the scores' dtype (float32 under autocast).

    `scaled_last`: the scores are divided when the mask has been added (CodeGen).
    """
    q = ops.cast(t, q, "float32", "attention query in float32")
    k = ops.cast(t, k, "float32", "attention key in float32")
    flops = q.numel.times(SEQUENCE) * 2
    weights = ops.matmul(t, q, k, TOKENS_BY_SEQUENCE * heads, 1, "attention: scores", flops=flops)
    if not scaled_last:
        weights = ops.scale(t, weights, "attention: scaled scores")
    if mask is not None:
        weights = ops.add(t, weights, mask, "attention: masked scores")
    if scaled_last:
        weights = ops.scale(t, weights, "attention: scaled scores")
    weights = ops.softmax(t, weights, "float32", "attention: softmax in float32")
    weights = ops.cast(t, weights, v.dtype, "attention: probabilities")
    weights = ops.dropout(t, weights, dropout, "attention: dropout")
    out = ops.matmul(t, weights, v, v.numel, v.width, "attention: output by head", flops=flops)
    return ops.copy(t, out, "attention: output")


def with_sinks(
    t: Tape,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    sinks: Tensor | None,
    heads: int,
    kv_heads: int,
    dropout: float,
    *,
    one_name: bool = False,
) -> Tensor:
    """gpt-oss: one more column in the scores, a learned sink of each head, cut off again after the softmax.

    Without `sinks` the scores are shifted and nothing is cut off (MiMo-V2-Flash's full layers). `one_name`: each step's
    result takes the place of the one before.

    Source: transformers 5.23 models/gpt_oss/modeling_gpt_oss.py, `eager_attention_forward`.
    """
    assert isinstance(v.width, int)
    groups = heads // kv_heads
    key, value = k, v
    if groups > 1:
        key, value = (ops.copy(t, x, "attention: repeated to all heads", x.numel * groups) for x in (k, v))
    scores = TOKENS_BY_SEQUENCE * heads
    flops = q.numel.times(SEQUENCE) * 2
    weights = ops.matmul(t, q, key, scores, 1, "attention: scores", flops=flops)
    weights = ops.scale(t, weights, "attention: scaled scores")
    if mask is not None:
        weights = ops.add(t, weights, mask, "attention: masked scores")
    wide = scores + TOKENS * heads
    combined = (
        weights.view() if sinks is None else ops.spread_cat(t, weights, sinks, wide, 1, "attention: scores and sinks")
    )
    if one_name:
        t.end(weights)
    combined = less_the_largest(t, combined, TOKENS * heads)
    # its dtype is given, which autocast leaves as it is
    probabilities = ops.softmax(t, combined, combined.dtype, "attention: softmax")
    cut = probabilities if sinks is None else ops.cut(t, probabilities, "attention: cut", numel=scores)
    cut = ops.cast(t, ops.dropout(t, cut, dropout, "attention: dropout"), value.dtype, "attention: probabilities")
    if one_name:
        t.end(combined)
    flops = scores * (2 * v.width)
    out = ops.matmul(t, cut, value, TOKENS * (heads * v.width), v.width, "attention: output by head", flops=flops)
    return ops.copy(t, out, "attention: output")


def less_the_largest(t: Tape, x: Tensor, rows: Size) -> Tensor:
    """Each row minus its largest value, whose place is kept; that value's gradient is put into zeros."""
    places = t.new(rows, "int64", 1, "attention: places of the largest scores")
    largest = t.new(rows, x.dtype, 1, "attention: largest scores")
    numel, dtype, width = x.numel, x.dtype, x.width

    def apply(g: Tensor) -> Tensor:
        label = "gradient: attention: largest scores"
        with t.temporary(numel, dtype, width, label, "temporaries"):
            return t.new(numel, dtype, width, label, "temporaries")

    kept = derivatives.LARGEST.kept(self=x, indices=places)
    t.record("attention: largest scores", [largest], [x], kept, apply)
    return ops.sub(t, x, largest, "attention: shifted scores")

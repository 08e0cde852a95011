"""Attention kernels: which one CUDA picks, and what each keeps.

`kernels` has the choice. transformers 5.23 passes grouped keys as they are only when there is no mask (`use_gqa_in_sdpa`), and
repeats them to all heads otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from loralens.core.tape import derivatives, ops
from loralens.core.tape.autocast import cast_leaf
from loralens.core.tape.cost import NOTHING, Costs, attention
from loralens.core.tape.forked import Inputs, on_both
from loralens.core.tape.graph import Tensor
from loralens.core.tape.kernels import ALIGNMENT, FLASH, MATH, Asked, choose
from loralens.core.tape.size import ONE, SEQUENCE, TOKENS_BY_SEQUENCE, ZERO, Size
from loralens.core.tape.work import bytes_of

if TYPE_CHECKING:
    from loralens.core.tape.position_bias import PositionBias
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity

NO_SAMPLES: Final = "the tower's query has three dimensions, and the faster kernels take four"
GROUPED_MAX_HEAD_DIM: Final = 256  # transformers 5.23 integrations/sdpa_attention.py, `use_gqa_in_sdpa`


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention product. `masked`: an additive or boolean mask is passed."""

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    implementation: str  # sdpa | flash | eager
    dropout: float = 0.0
    softcap: bool = False
    heads_first: bool = (
        False  # the query lies in memory by head, not by token: so does flash's result, which is then copied
    )
    repeats: bool = (
        True  # grouped keys may be repeated or passed on; Falcon does neither, which leaves only the math kernel
    )
    softmax_dtype: str | None = "float32"  # eager: None computes it in the scores' dtype, float32 under autocast
    returns_weights: bool = False  # eager: the layer holds the probabilities to its end (`Tape.take_weights`)
    causal: bool = True  # without a mask, a query meets the keys up to its own only
    in_a_row: bool = False  # samples lie behind each other, by head: three dimensions, which no fused kernel takes
    keys: Size = SEQUENCE  # how many keys a query meets: fixed where an encoder of fixed length is looked at

    def _rows(self, q: Tensor) -> Size:
        """Queries of the whole batch."""
        return q.numel // (self.heads * self.head_dim)

    def __call__(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Shapes: q (rows, heads*head_dim), k (rows, kv_heads*head_dim), v (rows, kv_heads*value_dim); result like v for all heads."""
        if t.handed.cache is not None:
            k, v = self._cached(t, k, v)
        if self.implementation == "eager":
            return self._eager(t, q, k, v, mask)
        narrow = mask is None and self.head_dim == self.value_dim <= GROUPED_MAX_HEAD_DIM  # keys are passed as they are
        grouped = self.kv_heads != self.heads and (narrow or not self.repeats or self.implementation == "flash")
        if self.kv_heads != self.heads and not grouped:
            k, v = self._repeat(t, k, "key"), self._repeat(t, v, "value")
        if t.autocast is not None:
            if mask is not None and mask.dtype == "float32":
                mask = ops.cast(t, mask, t.autocast, "attention: input cast by autocast")
            q, k, v = (ops.cast(t, x, t.autocast, "attention: input cast by autocast") for x in (q, k, v))
        if self.implementation == "flash":
            return self._by(FLASH, t, q, k, v, mask, grouped=grouped)
        kernel, other = self._kernels(t, q, mask, grouped=grouped)
        if kernel == other or t.other_card is None:
            return self._by(kernel, t, q, k, v, mask, grouped=grouped)

        def by(kernel: str, inputs: Inputs) -> Tensor:
            q, k, v, mask = inputs
            assert q is not None and k is not None and v is not None
            return self._by(kernel, t, q, k, v, mask, grouped=grouped)

        return on_both(t, t.other_card, (q, k, v, mask), partial(by, kernel), partial(by, other))

    def _by(
        self, kernel: str, t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, grouped: bool
    ) -> Tensor:
        if kernel == FLASH and mask is None:
            out = self._fused(t, q, k, v, None, "attention (flash)")
            return ops.copy(t, out, "attention: output by token") if self.heads_first else out
        if kernel == MATH:
            outside, t.autocast = t.autocast, None  # below autocast's reach
            out = self._math(t, q, k, v, mask, self.kv_heads if grouped else self.heads)
            t.autocast = outside
            return out
        return self._fused(t, q, k, v, mask, "attention (memory-efficient)")

    def _kernels(self, t: Tape, q: Tensor, mask: Tensor | None, *, grouped: bool) -> tuple[str, str]:
        """The kernel that PyTorch picks, and the other card's; what it picked, and why, is noted on the tape."""
        asked = Asked(
            t.kernels.accelerator, q.dtype, mask is not None, grouped, self.head_dim, self.value_dim, t.kernels.torch
        )
        if self.in_a_row:
            t.kernels.attention[MATH] = NO_SAMPLES
            return MATH, MATH
        chosen = choose(asked)
        t.kernels.attention[chosen.kernel] = chosen.because
        card = t.other_card
        return chosen.kernel, choose(asked._replace(accelerator=card.accelerator)).kernel if card else chosen.kernel

    def with_bias(
        self, t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: PositionBias, validity: Validity
    ) -> Tensor:
        """The same with a bias for every pair of positions, which only the efficient kernel takes."""
        if self.implementation == "eager":
            return self._eager(t, q, k, v, mask, bias)
        from loralens.core.tape.position_bias import additive_mask, for_kernel

        rows = self._rows(q)
        bias_and_mask = additive_mask(t, bias, mask, rows)  # a local variable of the caller
        given = bias_and_mask
        if t.autocast is not None:
            given, v, k, q = (
                cast_leaf(t, x, t.autocast, "attention: input cast by autocast") for x in (given, v, k, q)
            )
        given, gradient = for_kernel(t, bias, given, rows, validity)
        return self._fused(t, q, k, v, given, "attention (memory-efficient)", gradient)

    def _cached(self, t: Tape, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The cache's own tensors, joined from nothing and these; the caller's names then mean the cached ones.

        Source: transformers 5.23 cache_utils.py, `DynamicLayer.update` and the sliding one's (whose slice is a view);
        `lazy_initialization` makes both empty beginnings in the key's dtype.
        """
        wider = k.dtype == "float32" != v.dtype
        k = t.replace(k, ops.copy(t, k, "attention: key in the cache"))
        label = "attention: value in the cache"
        v = t.replace(v, ops.cast(t, v, "float32", label) if wider else ops.copy(t, v, label))
        t.handed.cached(t.layer, k, v)
        return k, v

    def _repeat(self, t: Tape, x: Tensor, name: str) -> Tensor:
        groups = self.heads // self.kv_heads
        if groups == 1:
            return x
        if self.kv_heads == 1:  # one head spreads to all as a view: expand and reshape have nothing to copy
            return ops.expand(t, x, f"attention: {name} spread to all heads", groups)
        return ops.copy(t, x, f"attention: {name} repeated to all heads", x.numel * groups, x.width * groups)

    def _by_head(self, t: Tape, x: Tensor, name: str) -> Tensor:
        """As a batched product needs it: with more samples than one, what lies by token is copied to lie by head."""
        if t.autocast is not None:
            x = ops.cast(t, x, t.autocast, f"attention: {name} cast by autocast")
        if self.heads_first or not t.validity.exceeds("micro_batch_size", 1):
            return x
        return ops.copy(t, x, f"attention: {name} by head")

    def _fused(
        self,
        t: Tape,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        label: str,
        mask_gradient: Size = ZERO,
    ) -> Tensor:
        if mask is not None and mask.dtype == "bool":  # made additive for each call
            mask = _additive(t, mask, q.dtype, f"{label}: additive mask")
        rows = self._rows(q)
        out, made = t.result(rows * (width := self.heads * self.value_dim), q.dtype, width, f"{label}: output")
        flash = "flash" in label
        # the efficient kernel is told whether there will be a backward pass (`compute_log_sumexp`)
        logsumexp = None
        if flash or any(x is not None and x.node is not None for x in (q, k, v, mask)):
            logsumexp, _ = t.result(rows * self.heads, "float32", 1, f"{label}: logsumexp")
        state, _ = t.result(ONE * (3 if flash else 2), "int64", 1, f"{label}: random state")
        sizes = [(x.numel, x.dtype, x.width) for x in (q, k, v)]
        trained = None if mask is None or mask.node is None else (mask_gradient, mask.dtype, 1)

        def apply(g: Tensor) -> list[Tensor]:
            found = [
                t.new(*size, f"gradient: {label} {name}", "temporaries")
                for size, name in zip(sizes, "qkv", strict=True)
            ]
            if trained is not None:
                found.append(t.new(*trained, f"gradient: {label} mask", "temporaries"))
            return found

        kept: dict[str, Tensor | None] = {"query": q, "key": k, "value": v, "output": out}
        if flash:
            saved = derivatives.FLASH.kept(**kept, logsumexp=logsumexp, rng_state=state)
        else:
            saved = derivatives.EFFICIENT.kept(**kept, log_sumexp=logsumexp, attn_bias=mask, philox_seed=state)
        costs = partial(self._costs, q, k, v, out, mask, flash=flash)
        t.record(label, [out], [q, k, v, mask], saved, apply, costs if made else NOTHING)
        return out

    def _costs(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, mask: Tensor | None, *, flash: bool) -> Costs:
        """A causal kernel skips what lies ahead; one with a mask computes every pair."""
        flops = self._rows(q).times(self.keys) * (2 * self.heads * (self.head_dim + self.value_dim))
        if mask is None and self.causal and self.keys == SEQUENCE:
            flops = flops // 2
        moved = bytes_of(q) + bytes_of(k) + bytes_of(v) + bytes_of(out)
        kernel = "flash" if flash else "efficient" if q.dtype != "float32" else "efficient_float32"
        return attention(kernel, flops, moved if mask is None else moved + bytes_of(mask))

    def _math(self, t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, given: int) -> Tensor:
        """The composite kernel: 16-bit inputs are computed in float32, keys and values of the `given` heads spread to all.

        A key that all heads share is spread by a view, which a batched product can take as it is for one sample only;
        with more samples it copies the key, the value and the query, which lies in memory by token.

        Source: aten/src/ATen/native/transformers/attention.cpp, `_scaled_dot_product_attention_math`, `_safe_softmax`;
        LinearAlgebra.cpp, `_matmul_impl` (expand, then reshape to one batch dimension).
        """
        dtype, groups = q.dtype, self.heads // given
        shared = self.kv_heads == 1 and not self.repeats
        q, k, v = (ops.cast(t, x.view(), "float32", "attention (math): input in float32") for x in (q, k, v))
        scaled_q = ops.scale(t, q, "attention (math): scaled query")
        rows = self._rows(q)
        met = rows.times(self.keys)
        size, held = (self.keys.times(self.keys), "float32") if mask is None else (met, dtype)
        made = mask is not None or self.causal  # of no mask, and nothing ahead to hide, none is made
        table = t.new(size, held, 1, "attention (math): additive mask") if made else None
        all_k, all_v = k.view(), v.view()
        if groups > 1 and not shared:
            all_k, all_v = (
                ops.copy(t, x, f"attention (math): {name} for all heads", x.numel * groups)
                for x, name in ((k, "key"), (v, "value"))
            )
        scaled_k = ops.scale(t, all_k, "attention (math): scaled key")
        first, second, third = scaled_q.view(), scaled_k.view(), all_v.view()
        # what lies by token is copied to lie by head
        by_head = not self.in_a_row and t.validity.exceeds("micro_batch_size", 1)
        if by_head and (shared or not self.heads_first):
            first = ops.copy(t, scaled_q, "attention (math): query by head")
        if by_head and (groups == 1 or shared):
            second = ops.copy(t, scaled_k, "attention (math): key for all heads", k.numel * groups)
        pairs = met * self.heads
        flops = pairs * (2 * self.head_dim)
        scores = ops.matmul(t, first, second, pairs, 1, "attention (math): scores", flops=flops)
        t.end(first, second, scaled_k)
        softmax = ops.softmax(t, scores, "float32", "attention (math): softmax")
        masked = t.new(scores.numel, "bool", 1, "attention (math): which scores are minus infinity", "temporaries")
        none = t.new(rows * self.heads, "bool", 1, "attention (math): which rows hold nothing else", "temporaries")
        t.end(none, masked, table, scores)
        weights = ops.dropout(t, softmax, self.dropout, "attention (math): dropout")
        if weights is not softmax:
            t.end(softmax)
        unused = t.new(weights.numel, dtype, 1, "attention (math): probabilities, not used", "temporaries")
        if by_head and (groups == 1 or shared):
            third = ops.copy(t, all_v, "attention (math): value for all heads", v.numel * groups)
        out = ops.matmul(
            t,
            weights,
            third,
            rows * (self.heads * self.value_dim),
            self.value_dim,
            "attention (math): output by head",
            flops=pairs * (2 * self.value_dim),
        )
        t.end(third)
        out = ops.cast(t, out, dtype, "attention (math): output cast back")
        t.end(all_v, all_k, v, q, k, scaled_q, unused, weights)
        return ops.copy(t, out, "attention: output by token", width=self.heads * self.value_dim)

    def _eager(
        self, t: Tape, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: PositionBias | None = None
    ) -> Tensor:
        key, value = self._repeat(t, k, "key"), self._repeat(t, v, "value")
        rows = self._rows(q)
        scores = rows.times(self.keys) * self.heads
        repeated = self.kv_heads != self.heads
        weights = ops.matmul(
            t,
            self._by_head(t, q, "query"),
            key if repeated else self._by_head(t, key, "key"),
            scores,
            1,
            "attention: scores",
            flops=scores * (2 * self.head_dim),
        )
        weights = ops.scale(t, weights, "attention: scaled scores")
        if self.softcap:
            weights = ops.scale(t, weights, "attention: scores / cap")
            weights = ops.tanh(t, weights, "attention: tanh of scores")
            weights = ops.scale(t, weights, "attention: capped scores")
        if bias is not None:
            weights = ops.add(t, weights, bias.tensor, "attention: biased scores")
        if mask is not None:
            weights = ops.add(t, weights, mask, "attention: masked scores")
        dtype = self.softmax_dtype or ("float32" if t.autocast else weights.dtype)
        weights = ops.softmax(t, weights, dtype, f"attention: softmax in {dtype}")
        if self.softmax_dtype is not None:
            weights = ops.cast(t, weights, q.dtype, "attention: probabilities")
        weights = ops.dropout(t, weights, self.dropout, "attention: dropout")
        value = value if repeated else self._by_head(t, value, "value")
        width = self.heads * self.value_dim
        flops = scores * (2 * self.value_dim)
        out = ops.matmul(t, weights, value, rows * width, self.value_dim, "attention: output by head", flops=flops)
        if self.returns_weights:
            t.handed.weights = weights
        return ops.copy(t, out, "attention: output", width=self.heads * self.value_dim)


def _additive(t: Tape, mask: Tensor, dtype: str, label: str) -> Tensor:
    """A boolean mask as numbers. One whose width is its keys is an encoder's, and is padded to rows of a multiple of 16.

    Source: aten/src/ATen/native/transformers/attention.cpp, torch 2.13: `convert_boolean_attn_mask`, `pad_bias`.
    """
    if mask.width == 1 or not isinstance(mask.width, int):
        return t.new(TOKENS_BY_SEQUENCE, dtype, 1, label)
    plain, keys = t.new(mask.numel, dtype, mask.width, label), mask.width
    if keys % ALIGNMENT == 0:
        return plain
    return t.replace(plain, t.new(mask.numel // keys * (keys + -keys % ALIGNMENT), dtype, 1, f"{label}, padded"))

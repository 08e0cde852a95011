"""The indexer of sparse attention: which keys a query meets. No gradient passes it, and nothing of it is kept for backward.

Source: transformers 5.23, models/{deepseek_v32,glm_moe_dsa}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.rotary import rotate_chunks
from loralens.core.tape import ops
from loralens.core.tape.folding import masked
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import TOKENS, TOKENS_BY_SEQUENCE, Size
from loralens.core.tape.tape import Tape

Tables = tuple[Tensor, Tensor]


class Indexer(Module):
    """Which keys each query meets. Shapes: (rows, hidden) and (rows, query rank) to numbers of (rows, chosen)."""

    def __init__(self, hidden: int, q_rank: int, heads: int, width: int, rope: int, chosen: int) -> None:
        self.wq_b = Linear(q_rank, heads * width, name="indexer: query")
        self.wk = Linear(hidden, width, name="indexer: key")
        self.k_norm = LayerNorm(width)
        self.weights_proj = Linear(hidden, heads, name="indexer: weights")
        self._heads, self._width, self._rope, self._chosen = heads, width, rope, chosen

    def forward(self, t: Tape, x: Tensor, narrow: Tensor, call: Call) -> Tensor:
        """Nothing of it is kept for backward."""
        outside, t.grad_enabled = t.grad_enabled, False
        try:
            return self._chosen_of(t, x, narrow, call)
        finally:
            t.grad_enabled = outside

    def _chosen_of(self, t: Tape, x: Tensor, narrow: Tensor, call: Call) -> Tensor:
        width, rope, tables = self._width, self._rope, call.shared["rotary"]
        q = self.wq_b(t, narrow).view(width)
        q_rot, q_pass = ops.split(t, q, [rope, width - rope], "indexer: parts of the query")
        k = self.k_norm(t, self.wk(t, x))
        k_rot, k_pass = ops.split(t, k, [rope, width - rope], "indexer: parts of the key")
        q_rot, k_rot = self.turned(t, q_rot, tables, "indexer query"), self.turned(t, k_rot, tables, "indexer key")
        q = ops.cat(t, [q_rot, q_pass], width, "indexer: query, whole")
        k = ops.cat(t, [k_rot, k_pass], width, "indexer: key, whole")
        scores = self._scores(t, q, k)
        weights = ops.cast(t, self.weights_proj(t, x), "float32", "indexer: weights in float32")
        weights = ops.scale(t, weights, "indexer: weights, scaled")
        flops = scores.numel * 2
        found = ops.matmul(t, weights, scores, TOKENS_BY_SEQUENCE, 1, "indexer: sum over heads", flops=flops)
        mask = call.masks["full"]
        assert mask is not None
        if mask.dtype == "bool":
            with t.temporary(mask.numel, "bool", 1, "indexer: later positions") as later:
                found = masked(t, found, later, "indexer: masked scores")
        else:
            found = ops.add(t, found, mask, "indexer: masked scores")
        rows = self.of_each(call)
        best = t.new(rows, found.dtype, 1, "indexer: best scores")
        numbers = t.new(rows, "int64", 1, "indexer: best keys")
        t.end(best)
        return ops.cast(t, numbers, "int32", "indexer: best keys, 32 bits")

    def of_each(self, call: Call) -> Size:
        """How many numbers a batch has: of so many keys for each query, or of all where the sequence has fewer."""
        return TOKENS * self._chosen if call.validity.exceeds("sequence_length", self._chosen) else TOKENS_BY_SEQUENCE

    def _scores(self, t: Tape, q: Tensor, k: Tensor) -> Tensor:
        """Every head's product with the one key, scaled, and cut at zero."""
        label = "indexer: scores"
        found = self._product(t, ops.cast(t, q, "float32", label), ops.cast(t, k, "float32", label), label)
        found = t.replace(found, ops.scale(t, found, f"{label}, scaled"))
        return ops.relu(t, found, f"{label}, positive")

    def _product(self, t: Tape, wide_q: Tensor, wide_k: Tensor, label: str) -> Tensor:
        """With more samples than one the key is laid out for every query."""
        numel, dtype = TOKENS_BY_SEQUENCE * self._heads, t.autocast or "float32"
        first, narrow = ops.cast(t, wide_q, dtype, label), ops.cast(t, wide_k, dtype, label)
        second = narrow.view()
        if t.validity.exceeds("micro_batch_size", 1):
            second = t.new(TOKENS_BY_SEQUENCE * self._width, dtype, self._width, f"{label}: key for every query")
        return ops.matmul(t, first, second, numel, 1, label, flops=numel * (2 * self._width))

    def turned(self, t: Tape, x: Tensor, tables: Tables, label: str) -> Tensor:
        """By halves."""
        return rotate(t, x, tables, label)


class PairedIndexer(Indexer):
    """By pairs (GLM-5)."""

    def turned(self, t: Tape, x: Tensor, tables: Tables, label: str) -> Tensor:
        """By pairs, as the attention itself."""
        return rotate_chunks(t, x, tables, label)

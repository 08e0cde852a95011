"""DeepSeek-V4's compressed keys: windows of positions become one entry each, and an indexer chooses among the small ones.

Source: transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py (`DeepseekV4HCACompressor`, `DeepseekV4CSACompressor`,
`DeepseekV4Indexer`). How many windows there are depends on the length, so a plan holds for one length.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LateCastRMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.module import Linear, Module
from loralens.core.tape import derivatives, ops
from loralens.core.tape.folding import assign, masked
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import BATCH, ONE, SEQUENCE, TOKENS, Size
from loralens.core.tape.tape import Tape

Tables = tuple[Tensor, Tensor]


class WholeRMSNorm(LateCastRMSNorm):
    """Its weight is float32 whatever the rest is held in."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.weight.held_in = "float32"


def half_tables(t: Tape, rows: Size, half: int, dtype: str) -> Tables:
    """cos and sin of so many positions, one for every pair of channels. Shapes: (rows, half) each."""
    with t.temporary(rows, "float32", 1, "rotary: positions"):
        angles = t.new(rows * half, "float32", half, "rotary: angles")

    def scaled(name: str) -> Tensor:
        with t.temporary(rows * half, "float32", half, f"rotary: {name}"):
            return t.new(rows * half, "float32", half, f"rotary: {name}")

    cos, sin = scaled("cos"), scaled("sin")
    tables = ops.cast(t, cos, dtype, "rotary: cos"), ops.cast(t, sin, dtype, "rotary: sin")
    t.end(angles)
    return tables


def turned_pairs(t: Tape, x: Tensor, tables: Tables, label: str) -> Tensor:
    """The last channels of x turned by pairs in float32, the others as they are. Shapes: any to the same."""
    assert isinstance(x.width, int) and isinstance(tables[0].width, int)
    rope, dtype = 2 * tables[0].width, x.dtype
    cos, sin = (ops.copy(t, table, "rotary: paired", table.numel * 2, rope) for table in tables)
    passed = ops.slice_last(t, x, x.width - rope, f"{label}: passed part")
    part = ops.slice_last(t, x, rope, f"{label}: turned part")
    wide = ops.cast(t, part.view(), "float32", f"{label} in float32")
    direct = ops.mul(t, wide, cos, f"{label}: x*cos")
    t.end(wide)
    first, second = (ops.slice_last(t, part, rope // 2, f"{label}: half") for _ in range(2))
    negated = ops.scale(t, second, f"{label}: -half")
    half = ops.cat(t, [negated, first], rope, f"{label}: rotated half")
    t.end(negated)
    wide = ops.cast(t, half.view(), "float32", f"{label}: rotated half in float32")
    t.end(half)
    crossed = ops.mul(t, wide, sin, f"{label}: half*sin")
    t.end(wide)
    total = ops.add(t, direct, crossed, f"{label} after rotary")
    t.end(direct, crossed)
    rotated = ops.cast(t, total, dtype, f"{label} after rotary, cast")
    return ops.cat(t, [passed, rotated], x.width, f"{label}, whole")


class HeavyCompressor(Module):
    """Windows that do not overlap: keys weighted by a softmax over each window. Shapes: position_bias (window, width)."""

    series = 1
    multiplies = False  # its own parameters are added

    def __init__(self, hidden: int, width: int, window: int) -> None:
        self.kv_proj = Linear(hidden, self.series * width, name="compressed keys")
        self.gate_proj = Linear(hidden, self.series * width, name="compressed keys: gate")
        self.position_bias = Parameter((window, self.series * width))
        self.position_bias.held_in = "float32"
        self.kv_norm = WholeRMSNorm(width)
        self._width, self._window = width, window

    def windows(self, t: Tape) -> int:
        """Whole windows of a sequence."""
        return t.validity.pinned("sequence_length") // self._window

    def forward(self, t: Tape, x: Tensor, narrow: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        """Shapes: x (rows, hidden) to one entry for every window, (windows, width), and what of them each query sees."""
        compressed = self.entries(t, x, call)
        number = self.windows(t)
        if not number:
            return compressed, None
        entries = t.new(ONE * number, "int64", 1, "compressed keys: numbers")
        with t.temporary(SEQUENCE, "int64", 1, "compressed keys: positions"):
            threshold = t.new(SEQUENCE, "int64", 1, "compressed keys: windows before")
        zeros = t.new(TOKENS * number, compressed.dtype, 1, "compressed keys: mask")
        with t.temporary(SEQUENCE * number, "bool", 1, "compressed keys: later ones"):
            mask = t.new(TOKENS * number, compressed.dtype, 1, "compressed keys: mask")
        t.end(zeros, entries, threshold)
        return compressed, mask

    def entries(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """One entry for every window."""
        kv, gate = t.local(self.kv_proj(t, x)), t.local(self.gate_proj(t, x))
        number, width = self.windows(t), self.series * self._width
        if not number:
            return t.new(ONE * 0, kv.dtype, self._width, "compressed keys: none")
        rows = BATCH * (number * self._window * width)
        chunk = ops.cut(t, kv, "compressed keys: whole windows", numel=rows) if rows != kv.numel else kv.view()
        given = ops.cut(t, gate, "compressed keys: whole windows", numel=rows) if rows != gate.numel else gate.view()
        gates = t.local(ops.add(t, given, t.parameter(self.position_bias), "compressed keys: gate with bias"))
        chunk, gates = self.laid_out(t, chunk, gates)
        t.local(chunk)
        t.local(gates)
        weights = ops.softmax(t, gates, "float32", "compressed keys: softmax")
        low = ops.cast(t, weights, chunk.dtype, "compressed keys: weights")
        product = ops.mul(t, chunk, low, "compressed keys: weighted")
        t.end(weights)
        if low is not weights:
            t.end(low)
        wide = ops.cast(t, product, "float32", "compressed keys: weighted, in float32") if t.autocast else product
        total = t.new(BATCH * (number * self._width), wide.dtype, self._width, "compressed keys: sum")
        numel = wide.numel

        def apply(g: Tensor) -> Tensor:
            return Tensor(g.storage, numel, g.dtype, self._width).as_view()

        t.record("compressed keys: sum", [total], [wide], [], apply)
        t.end(product)
        if wide is not product:
            t.end(wide)
        normed = self.kv_norm(t, total)
        t.end(total)
        tables = half_tables(t, BATCH * number, call.shared["rotary, compress"][0].width, normed.dtype)
        return t.replace(normed, turned_pairs(t, normed, tables, "compressed keys"))

    def laid_out(self, t: Tape, chunk: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """As the windows lie."""
        return chunk, gates


class OverlappingCompressor(HeavyCompressor):
    """Two series: an entry is made of its own window's second and the window before's first."""

    series = 2

    def laid_out(self, t: Tape, chunk: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """Written into zeros, the second series first."""
        width = self._width
        made = []
        for given, label in ((chunk, "compressed keys: both windows"), (gates, "compressed keys: both windows' gates")):
            base = t.new(given.numel, given.dtype, width, label)
            own = ops.cut(t, given, f"{label}: own", numel=given.numel // 2, width=width)
            base = assign(t, base, own, label)
            if self.windows(t) > 1:
                rows = given.numel // 2 - BATCH * (self._window * width)
                before = ops.cut(t, given, f"{label}: before", numel=given.numel - BATCH * (self._window * 2 * width))
                before = ops.cut(t, before, f"{label}: before", numel=rows, width=width)
                base = assign(t, base, before, label)
            made.append(base)
        return made[0], made[1]


class CompressedIndexer(OverlappingCompressor):
    """Scores every query against small compressed keys; the best are chosen, and no gradient comes back."""

    def __init__(self, hidden: int, width: int, window: int, q_rank: int, heads: int, most: int) -> None:
        super().__init__(hidden, width, window)
        self.q_b_proj = Linear(q_rank, heads * width, name="indexer: query")
        self.scorer = Module()
        self.scorer.weights_proj = Linear(hidden, heads, name="indexer: weights")
        self._heads, self._most = heads, most

    def chosen(self, t: Tape) -> int:
        """Entries for each query."""
        return min(self._most, self.windows(t))

    def forward(self, t: Tape, x: Tensor, narrow: Tensor, call: Call) -> Tensor:  # type: ignore[override]
        """Shapes: x (rows, hidden), narrow (rows, query rank) to numbers of entries, (rows, chosen)."""
        number, width = self.windows(t), self._width
        compressed = self.entries(t, x, call)
        half = call.shared["rotary, compress"][0].width
        tables = half_tables(t, SEQUENCE, half, x.dtype)
        q = self.q_b_proj(t, narrow).view(width)
        q = turned_pairs(t, q, tables, "indexer query")
        scores = self._scores(t, q, compressed, x, number)
        if not number:
            return t.new(ONE * 0, "int64", 1, "indexer: chosen entries")
        with t.temporary(SEQUENCE, "int64", 1, "indexer: positions"):
            threshold = t.new(SEQUENCE, "int64", 1, "indexer: windows before")
        entries = t.new(ONE * number, "int64", 1, "indexer: numbers")
        later = t.new(SEQUENCE * number, "bool", 1, "indexer: later entries")
        scores = t.replace(scores, masked(t, scores, later, "indexer: masked scores"))
        rows = TOKENS * self.chosen(t)
        with t.temporary(rows, scores.dtype, 1, "indexer: best scores"):
            best = t.new(rows, "int64", 1, "indexer: best entries")
        invalid = t.new(rows, "bool", 1, "indexer: entries that are none")
        with t.temporary(rows, "int64", 1, "indexer: none"):
            found = t.new(rows, "int64", 1, "indexer: chosen entries")
        t.end(invalid, best, threshold, entries, later)
        return found

    def _scores(self, t: Tape, q: Tensor, compressed: Tensor, x: Tensor, number: int) -> Tensor:
        numel, dtype = TOKENS * (self._heads * number), t.autocast or "float32"
        wide_q = ops.cast(t, q.view(), "float32", "indexer: query in float32")
        wide_k = ops.cast(t, compressed.view(), "float32", "indexer: keys in float32")
        first, second = (ops.cast(t, each.view(), dtype, "indexer: scores") for each in (wide_q, wide_k))
        if t.validity.exceeds("micro_batch_size", 1):
            first = t.replace(first, ops.copy(t, first, "indexer: query laid out"))
            every = TOKENS * (number * self._width)
            second = t.replace(second, ops.copy(t, second, "indexer: keys for every query", every, self._width))
        scores = ops.matmul(t, first, second, numel, 1, "indexer: scores", flops=numel * (2 * self._width))
        t.end(first, second, wide_q, wide_k)
        positive = t.replace(scores, ops.relu(t, scores, "indexer: scores, positive"))
        scores = t.replace(positive, ops.scale(t, positive, "indexer: scores, scaled"))
        raw = self.scorer.weights_proj(t, x)
        wide = ops.cast(t, raw.view(), "float32", "indexer: weights in float32")
        t.end(raw)
        weights = t.replace(wide, ops.scale(t, wide, "indexer: weights, scaled"))
        product = ops.mul(t, scores, weights, "indexer: scores, weighted")
        total = derivatives.total(t, product, "indexer: sum over heads", numel=TOKENS * number, width=1)
        t.end(product, scores, weights)
        return total


class SparseCompressor(OverlappingCompressor):
    """Small windows, of whose entries each query sees those that the indexer chose."""

    def __init__(self, hidden: int, width: int, window: int, indexer: CompressedIndexer) -> None:
        super().__init__(hidden, width, window)
        self.indexer = indexer

    def forward(self, t: Tape, x: Tensor, narrow: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
        """Shapes: x (rows, hidden) to one entry for every window, (windows, width), and what of them each query sees."""
        compressed = self.entries(t, x, call)
        number = self.windows(t)
        chosen = self.indexer(t, x, narrow, call)
        valid = t.new(chosen.numel, "bool", 1, "indexer: entries that are there")
        with t.temporary(chosen.numel, "int64", 1, "indexer: none"):
            safe = t.new(chosen.numel, "int64", 1, "indexer: chosen entries, or none")
        mask = t.new(TOKENS * (number + 1), compressed.dtype, 1, "compressed keys: mask")
        t.end(valid, safe, chosen)
        return compressed, mask

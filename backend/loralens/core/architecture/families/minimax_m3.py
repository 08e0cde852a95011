"""MiniMax-M3's language model: sparse layers whose indexer chooses blocks of keys for every group of heads, clamped experts.

Source: transformers 5.23, models/minimax_m3_vl/{modeling,configuration}_minimax_m3_vl.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loralens.core.architecture.blocks import GemmaRMSNorm
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.families.deepseek_sparse import MASKED
from loralens.core.architecture.families.minimax_m2 import MiniMaxM2Router
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import ROUTING, Experts
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.errors import InvalidInput
from loralens.core.tape import ops
from loralens.core.tape.folding import masked
from loralens.core.tape.kernels import ALIGNMENT
from loralens.core.tape.selecting import padded
from loralens.core.tape.size import SEQUENCE, TOKENS, TOKENS_BY_SEQUENCE, Size

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.question.recipe import Recipe
    from loralens.core.tape.graph import Tensor
    from loralens.core.tape.parameter import Parameter
    from loralens.core.tape.tape import Tape
    from loralens.core.tape.validity import Validity


@dataclass(frozen=True, slots=True)
class Index:
    """What an indexer is."""

    heads: int
    width: int
    block: int  # keys
    chosen: int  # blocks
    local: int  # blocks before a query that are always seen

    def blocks(self, validity: Validity) -> int:
        """Blocks of a sequence: the plan holds for lengths of as many."""
        return validity.steps("sequence_length", self.block)


def clamped_gate(t: Tape, gate_up: Tensor, width: int, label: str) -> Tensor:
    """`(up + 1) * gate * sigmoid(alpha * gate)`, gate and up clamped. Shapes: (rows, 2 * width) to (rows, width)."""
    gate, up = ops.split(t, gate_up, [width] * 2, f"{label}: gate and up")
    gate = ops.clamp(t, gate, f"{label}: clamped gate")
    up = ops.clamp(t, up, f"{label}: clamped up")
    inner = ops.sigmoid(t, ops.scale(t, gate, f"{label}: scaled gate"), f"{label}: sigmoid of the gate")
    glu = ops.mul(t, gate, inner, f"{label}: activated gate")
    t.end(inner)
    return ops.mul(t, ops.shift(t, up, f"{label}: up + 1"), glu, f"{label}: product")


class ClampedMLP(Module):
    """Gate and up in one matrix."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        self.gate_up_proj = Linear(hidden, 2 * intermediate, name="mlp gate and up")
        self.down_proj = Linear(intermediate, hidden, name="mlp down")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        gate_up = t.local(self.gate_up_proj(t, x))
        return self.down_proj(t, clamped_gate(t, gate_up, self.down_proj.in_features, "mlp"))


class ClampedExperts(Experts):
    """The same in every expert."""

    def _gate(self, t: Tape, fused: Tensor) -> Tensor:
        return clamped_gate(t, fused, self._intermediate, "experts")


class ScaledMoe(Module):
    """A shared MLP first, then the experts, whose result is scaled before both are added."""

    def __init__(self, router: MiniMaxM2Router, experts: Module, shared: Module) -> None:
        self.gate = router
        self.experts = experts
        self.shared_experts = shared

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        beside = self.shared_experts(t, x)
        weights, numbers = self.gate(t, x)
        x = self.experts(t, x, weights, numbers, self.gate.chosen)
        x = ops.scale(t, x, "experts: result, scaled")
        return ops.add(t, x, beside, "experts plus shared expert")


class BlockIndexer(Module):
    """Which blocks of keys each query meets, for every head of its own. No gradient comes back to it."""

    def __init__(self, hidden: int, index: Index) -> None:
        self.q_proj = Linear(hidden, index.heads * index.width, name="indexer: query")
        self.k_proj = Linear(hidden, index.width, name="indexer: key")
        self.q_norm = GemmaRMSNorm(index.width)
        self.k_norm = GemmaRMSNorm(index.width)
        self._index = index

    def forward(self, t: Tape, x: Tensor, call: Call, rotated: int) -> Tensor:
        """Shapes: (rows, hidden) to numbers of blocks (rows, heads * chosen)."""
        index, tables = self._index, call.shared["rotary"]
        q = self.q_norm(t, self.q_proj(t, x).view(index.width))
        k = self.k_norm(t, self.k_proj(t, x).view(index.width))
        q, k = rotate_part(t, q, k, tables, min(rotated, index.width), pass_empty=True)
        pairs, blocks = TOKENS_BY_SEQUENCE * index.heads, index.blocks(t.validity)
        scores = self._scores(t, q, k, pairs)
        t.local(t.new(SEQUENCE, "int64", 1, "indexer: positions of keys"))
        later = t.new(TOKENS_BY_SEQUENCE, "bool", 1, "indexer: later positions")
        scores = masked(t, scores, later, "indexer: masked scores")
        if not t.validity.exceeds("sequence_length", blocks * index.block - 1):
            scores = padded(t, scores, TOKENS * (index.heads * blocks * index.block), "indexer: scores of whole blocks")
        t.local(t.new(TOKENS * (index.heads * blocks), scores.dtype, blocks, "indexer: best score of each block"))
        t.local(t.new(TOKENS, "int64", 1, "indexer: blocks of queries"))
        t.local(t.new(TOKENS * index.local, "int64", index.local, "indexer: blocks before a query"))
        picked = TOKENS * (index.heads * min(index.chosen, blocks))
        t.local(t.new(picked, scores.dtype, 1, "indexer: best scores"))
        t.local(t.new(picked, "int64", 1, "indexer: best blocks"))
        with t.temporary(picked, "bool", 1, "indexer: blocks that are not there"):
            return t.new(picked, "int64", 1, "indexer: chosen blocks")

    def _scores(self, t: Tape, q: Tensor, k: Tensor, pairs: Size) -> Tensor:
        """Every head's product with the one key, which is laid out for all heads where there are several samples."""
        label = "indexer: scores"
        dtype, heads, width = t.autocast or "float32", self._index.heads, self._index.width
        wide_q, wide_k = ops.cast(t, q, "float32", label), ops.cast(t, k, "float32", label)
        first, second = ops.cast(t, wide_q, dtype, label), ops.cast(t, wide_k, dtype, label)
        if t.validity.exceeds("micro_batch_size", 1):
            second = ops.copy(t, second, f"{label}: key for all heads", second.numel * heads)
        return ops.matmul(t, first, second, pairs, 1, label, flops=pairs * (2 * width))

    def mask(self, t: Tape, chosen: Tensor, call: Call, dtype: str, heads: int) -> Tensor:
        """An additive mask for every head. Shapes: (rows, heads * keys)."""
        index, seen = self._index, call.masks["full"]
        blocks = index.blocks(t.validity)
        pairs = TOKENS_BY_SEQUENCE * heads
        with t.temporary(chosen.numel, "bool", 1, "indexer: blocks that are not there"):
            safe = t.new(chosen.numel, "int64", 1, "indexer: chosen blocks, or none")
        bias = t.new(TOKENS * (index.heads * (blocks + 1)), dtype, blocks + 1, "indexer: bias of blocks")
        with t.temporary(TOKENS * (index.heads * blocks), "bool", blocks, "indexer: chosen blocks, by number"):
            wide = t.new(TOKENS * (index.heads * blocks * index.block), "bool", 1, "indexer: chosen keys")
        wide = t.replace(wide, t.new(pairs, "bool", 1, "indexer: chosen keys of every head"))
        if seen is None:
            positions = t.new(SEQUENCE, "int64", 1, "indexer: positions of keys")
            later = t.new(TOKENS_BY_SEQUENCE, "bool", 1, "indexer: later positions")
            with t.temporary(TOKENS_BY_SEQUENCE, "bool", 1, "indexer: earlier positions"):
                keep = t.new(pairs, "bool", 1, "indexer: keys that are seen")
            others = [positions, later]
        else:
            others = [] if seen.dtype == "bool" else [t.new(seen.numel, "bool", 1, "indexer: keys that are no padding")]
            keep = t.new(pairs, "bool", 1, "indexer: keys that are seen")
        with (
            t.temporary(pairs, dtype, 1, "indexer: zeros"),
            t.temporary(pairs, "bool", 1, "indexer: keys that are hidden"),
        ):
            found = t.new(pairs, dtype, 1, "attention mask of every head")
        t.end(safe, bias, wide, keep, *others)
        return found


class BlockAttention(SelfAttention):
    """Norms on query and key, rotary on a part of each head; a sparse layer has an indexer."""

    heads_first = True

    def __init__(self, s: Shape, index: Index | None) -> None:
        super().__init__(s)
        self.q_norm = GemmaRMSNorm(s.head_dim)
        self.k_norm = GemmaRMSNorm(s.head_dim)
        if index is not None:
            self.indexer = BlockIndexer(s.hidden, index)
        self._sparse = index is not None

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, width = self.s, self.s.head_dim
        q = self.q_norm(t, self.q_proj(t, x).view(width))
        k = self.k_norm(t, self.k_proj(t, x).view(width))
        v = self.v_proj(t, x).view(width)
        q, k = rotate_part(t, q, k, call.shared["rotary"], s.rotated, pass_empty=True)
        given = mask = call.masks["full"]
        if self._sparse:
            chosen = self.indexer(t, x, call, s.rotated)
            mask = self.indexer.mask(t, chosen, call, q.dtype, s.heads)
            given = _read(t, mask, s.heads) if call.attention == "sdpa" else mask
        out = self.kernel(call)(t, q, k, v, given)
        return self.o_proj(t, out.view(s.heads * width))


def _read(t: Tape, mask: Tensor, heads: int) -> Tensor:
    """The mask as the kernel reads it: in autocast's dtype, in rows of a multiple of 16 values."""
    mask = (
        mask if t.autocast is None else ops.cast(t, mask, t.autocast, "attention mask of every head, cast by autocast")
    )
    left = -t.validity.remainder("sequence_length", ALIGNMENT) % ALIGNMENT
    if not left:
        return mask
    return t.new(mask.numel + TOKENS * (heads * left), mask.dtype, 1, "attention mask of every head, padded")


class MiniMaxM3(CausalDecoder):
    """The causal language model."""

    caches = False

    def __init__(self, config: Config) -> None:
        s = Shape.read(config.over({"hidden_act": "silu"}), kv_heads=4, head_dim=128)
        experts = config.integer("num_local_experts", "num_experts", default=128, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=4, high=experts)
        dense = config.integer("dense_intermediate_size", default=12288)
        shared = config.integer("shared_intermediate_size", default=3072)
        index = _index(config)

        def layer(kind: tuple[str, str]) -> DecoderLayer:
            mlp: Module = ClampedMLP(s.hidden, dense)
            if kind[1] == "sparse":
                mlp = ScaledMoe(
                    MiniMaxM2Router(s.hidden, experts, chosen),
                    ClampedExperts(s.hidden, s.intermediate, experts, s.act),
                    ClampedMLP(s.hidden, shared),
                )
            attention = BlockAttention(s, index if kind[0] == "minimax_m3_sparse" else None)
            return DecoderLayer(s, attention, mlp, GemmaRMSNorm)

        self.assemble(s, layer, _kinds(config, s.layers), norm=GemmaRMSNorm)

    def unreached(self) -> Iterable[Parameter]:
        """The indexers' parameters, adapters' included."""
        return [p for _, module in self.walk() if isinstance(module, BlockIndexer) for p in module.all_parameters()]

    def attention_for(self, recipe: Recipe) -> str:
        """Flash attention takes no mask of chosen keys."""
        return "sdpa" if recipe.attention == "flash" else recipe.attention

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run, and what the mask is."""
        return [*super().assumptions(recipe), ROUTING, MASKED]


_OLD_NAMES: Final = {
    "index_n_heads": "sparse_num_index_heads",
    "index_head_dim": "sparse_index_dim",
    "index_block_size": "sparse_block_size",
    "index_topk_blocks": "sparse_topk_blocks",
    "index_local_blocks": "sparse_local_block",
}


def _index(config: Config) -> Index:
    """The indexer's sizes, which the first files state in `sparse_attention_config`."""
    old = config.nested("sparse_attention_config") or Config({})
    given = {name: old.entries[own] for name, own in _OLD_NAMES.items() if old.has(own)}
    own = config.over(given)
    return Index(
        own.integer("index_n_heads", default=4, high=MAX_HEADS),
        own.integer("index_head_dim", default=128, high=65_536),
        own.integer("index_block_size", default=128, high=2**31),
        own.integer("index_topk_blocks", default=16, high=2**31),
        own.integer("index_local_blocks", default=1, low=0, high=MAX_HEADS),
    )


def _kinds(config: Config, layers: int) -> list[tuple[str, str]]:
    """Of every layer its attention and its MLP, from names or, in the first files, from zeros and ones."""
    old = config.nested("sparse_attention_config") or Config({})
    attention, mlp = ["full_attention"] * layers, ["sparse"] * layers
    if flags := old.integers("sparse_attention_freq"):
        attention = ["minimax_m3_sparse" if flag else "full_attention" for flag in flags[:layers]]
    if flags := config.integers("moe_layer_freq"):
        mlp = ["sparse" if flag else "dense" for flag in flags[:layers]]
    attention = layer_kinds(config, ("layer_types",), attention, ("full_attention", "minimax_m3_sparse"))
    mlp = layer_kinds(config, ("mlp_layer_types",), mlp, ("sparse", "dense"))
    for name, found in (("sparse_attention_config", attention), ("moe_layer_freq", mlp)):
        if len(found) != layers:
            raise InvalidInput(
                f"config.{name} is for {len(found)} layers, and there are {layers}", field=f"config.{name}"
            )
    return list(zip(attention, mlp, strict=True))

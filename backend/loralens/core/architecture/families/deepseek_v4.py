"""DeepSeek-V4: a sliding window and compressed keys, one key head that is the value too, several residual streams, experts.

Source: transformers 5.23, models/deepseek_v4/modeling_deepseek_v4.py. Its attention is eager: a mask of every query and key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import causal_mask, lookup
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.families.compressor import (
    CompressedIndexer,
    HeavyCompressor,
    SparseCompressor,
    WholeRMSNorm,
    half_tables,
    turned_pairs,
)
from loralens.core.architecture.families.hyper_connections import HyperConnection, HyperHead, mixed, unweighted_norm
from loralens.core.architecture.families.limited_experts import LimitedExperts, LimitedMLP, RootRouter, V4Moe
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import ROUTING
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.question.precision import promote
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.eager import less_the_largest
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.rows import like
from loralens.core.tape.size import SEQUENCE, TOKENS
from loralens.core.tape.tape import Tape

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
_KINDS: Final = (SLIDING, SPARSE, HEAVY)
_MLPS: Final = ("hash_moe", "moe")
MASKED: Final = (
    "compressed attention runs as transformers' own PyTorch code: every query meets every key and entry under a mask; "
    "kernels that read the window and the chosen entries alone keep less"
)


class GroupedLinear(Linear):
    """Every group of heads is projected by itself. Shapes: (rows, groups in) to (rows, out)."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__(inputs, outputs, name="attention output by group")
        self.packable = False
        self._groups = groups

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """One batched product; its result is laid out by row again."""
        width = self.out_features // self._groups
        size, label = TOKENS * self.out_features, "attention output by group"
        out = ops.matmul(t, x, t.parameter(self.weight), size, width, label, flops=x.numel * (2 * width))
        return t.replace(out, ops.copy(t, out, f"{label}, by row", width=self.out_features))


class CompressedAttention(Module):
    """One head is key and value of all queries; entries of compressed windows stand beside it, and a sink in each softmax."""

    def __init__(
        self, s: Shape, q_rank: int, rope: int, groups: int, o_rank: int, kind: str, compressor: Module | None
    ) -> None:
        heads, width = s.heads, s.head_dim
        self.q_a_proj = Linear(s.hidden, q_rank, name="attention query, narrow")
        self.q_a_norm = WholeRMSNorm(q_rank)
        self.q_b_proj = Linear(q_rank, heads * width, name="attention query")
        self.kv_proj = Linear(s.hidden, width, name="attention key and value")
        self.kv_norm = WholeRMSNorm(width)
        self.o_a_proj = GroupedLinear(heads * width // groups, groups * o_rank, groups)
        self.o_b_proj = Linear(groups * o_rank, s.hidden, name="attention output projection")
        self.sinks = Parameter((heads,))
        self.sinks.held_in = "float32"
        if compressor is not None:
            self.compressor = compressor
        self._compressor, self._s = compressor, s
        self._tables = "rotary, main" if kind == SLIDING else "rotary, compress"

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, tables, keys = self._s, call.shared[self._tables], t.validity.pinned("sequence_length")
        narrow = self.q_a_norm(t, self.q_a_proj(t, x))
        q = self.q_b_proj(t, narrow).view(s.head_dim)
        q = unweighted_norm(t, q, "attention query")
        q = turned_pairs(t, q, tables, "attention query")
        kv = self.kv_norm(t, self.kv_proj(t, x))
        kv = turned_pairs(t, kv, tables, "attention key and value")
        mask = call.masks["full"]
        assert mask is not None
        if self._compressor is not None:
            entries, seen = self._compressor(t, x, narrow, call)
            entries = t.local(entries)
            keys += self._compressor.windows(t)
            kv = self._joined(t, kv, entries)
            if seen is not None:
                cast = ops.cast(t, seen.view(), mask.dtype, "compressed keys: mask, cast")
                mask = t.local(t.new(TOKENS * keys, mask.dtype, 1, "attention mask with entries"))
                t.end(cast)
                t.local(seen)
        out = self._attended(t, q, kv, mask, keys)
        negative = (tables[0], t.new(tables[1].numel, tables[1].dtype, tables[1].width, "rotary: -sin"))
        out = t.replace(out, turned_pairs(t, out, negative, "attention output"))
        t.end(negative[1])
        grouped = ops.copy(t, out, "attention output, grouped", width=self.o_a_proj.in_features)
        grouped = self.o_a_proj(t, grouped)
        result: Tensor = self.o_b_proj(t, grouped)
        return result

    def _joined(self, t: Tape, kv: Tensor, entries: Tensor) -> Tensor:
        """The positions' own keys and the entries, in the wider dtype of the two."""
        wide, label = promote(kv.dtype, entries.dtype), "attention key and value with entries"
        parts = [ops.cast(t, each.view(), wide, f"{label}: cast") for each in (kv, entries)]
        out = ops.cat(t, parts, self._s.head_dim, label)
        t.end(*parts)
        return out

    def _laid_out(self, t: Tape, spread: Tensor, name: str) -> Tensor:
        """As the product takes it: a view for one sample, unless autocast casts it, head by head."""
        if t.autocast is not None and spread.dtype != t.autocast:
            return ops.cast(t, spread, t.autocast, f"attention: {name} cast by autocast")
        if t.validity.exceeds("micro_batch_size", 1):
            return ops.copy(t, spread, f"attention: {name} of every head")
        return spread.view()

    def _attended(self, t: Tape, q: Tensor, kv: Tensor, mask: Tensor, keys: int) -> Tensor:
        """Eager, with a sink of each head. Shapes: q (rows heads, width), kv (keys, width) to (rows heads, width)."""
        s = self._s
        heads, width, mark = s.heads, s.head_dim, len(t.locals)
        pairs = TOKENS * (heads * keys)
        key, value = (
            ops.expand(t, kv, f"attention: {name} of all heads", heads).view(width) for name in ("key", "value")
        )
        first = self._laid_out(t, key, "key")
        scores = ops.matmul(t, q, first, pairs, 1, "attention: scores", flops=pairs * (2 * width))
        t.end(first)
        scores = t.replace(scores, ops.scale(t, scores, "attention: scaled scores"))
        scores = t.replace(scores, ops.add(t, scores, mask, "attention: masked scores"))
        combined = self._with_sinks(t, scores, keys)
        combined = t.local(t.replace(combined, less_the_largest(t, combined, TOKENS * heads)))
        weights = t.local(ops.softmax(t, combined, combined.dtype, "attention: softmax"))
        cut = ops.cut(t, weights, "attention: cut", numel=pairs)
        cut = ops.dropout(t, cut, s.attention_dropout, "attention: dropout")
        scores = t.replace(scores, ops.cast(t, cut.view(), kv.dtype, "attention: probabilities"))
        t.end(cut)
        second = self._laid_out(t, value, "value")
        out = ops.matmul(
            t, scores, second, TOKENS * (heads * width), width, "attention: output by head", flops=pairs * (2 * width)
        )
        t.end(second)
        t.handed.weights = scores
        out = t.replace(out, ops.copy(t, out, "attention: output"))
        t.leave(mark)
        return out

    def _with_sinks(self, t: Tape, scores: Tensor, keys: int) -> Tensor:
        """One more column in the scores, which makes all of them float32."""
        heads, label = self._s.heads, "attention: scores and sinks"
        if t.autocast is not None:
            scores = ops.cast(t, scores.view(), "float32", f"{label}: cast by autocast")
        sinks = t.parameter(self.sinks)
        out = t.new(TOKENS * (heads * (keys + 1)), "float32", 1, label)
        size, number = (scores.numel, scores.dtype, scores.width), (sinks.numel, sinks.dtype, sinks.width)
        wants = scores.node is not None, sinks.node is not None

        def apply(g: Tensor) -> list[Tensor | None]:
            own = Tensor(g.storage, size[0], g.dtype, 1).as_view() if size[1] == g.dtype else None
            of_scores = own or like(t, *size, f"gradient: {label}, cast")
            return [of_scores if wants[0] else None, like(t, *number, f"gradient: {label}") if wants[1] else None]

        t.record(label, [out], [scores, sinks], [], apply)
        return out


class V4Layer(Module):
    """Attention and experts between streams that are collapsed before and mixed behind each."""

    def __init__(self, hidden: int, attention: Module, mlp: Module, streams: int, iterations: int) -> None:
        self.self_attn = attention
        self.mlp = mlp
        self.input_layernorm = WholeRMSNorm(hidden)
        self.post_attention_layernorm = WholeRMSNorm(hidden)
        self.attn_hc = HyperConnection(hidden, streams, iterations)
        self.ffn_hc = HyperConnection(hidden, streams, iterations)
        self._hidden = hidden

    def forward(self, t: Tape, streams: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, n hidden) to the same."""
        post, comb, collapsed = self.attn_hc(t, streams)
        made = self.self_attn(t, self.input_layernorm(t, collapsed), call)
        weights = t.handed.take_weights()
        streams = mixed(t, streams, made, post, comb, self._hidden)
        post, comb, collapsed = self.ffn_hc(t, streams)
        of_experts = self.mlp(t, self.post_attention_layernorm(t, collapsed))
        out = mixed(t, streams, of_experts, post, comb, self._hidden)
        t.end(weights)
        return out


class DeepSeekV4(CausalDecoder):
    """The causal language model."""

    mixes = True
    caches = False
    in_stages = False
    last_apart = True
    default_targets: tuple[str, ...] | str = ("q_a_proj", "kv_proj")
    refused_targets = frozenset({"o_a_proj"})
    refusal = (
        "an adapter on {} fails at its first step in this family: its layer projects every group of heads by itself"
    )
    refuses_all_linear = "all-linear fails at the first step in this family: it takes in o_a_proj, which projects every group of heads by itself"
    float32_modules = frozenset(
        {"self_attn.compressor.kv_proj", "self_attn.compressor.gate_proj", "self_attn.compressor.indexer.kv_proj",
         "self_attn.compressor.indexer.gate_proj", "self_attn.compressor.indexer.scorer.weights_proj"}
    )  # fmt: skip

    def __init__(self, config: Config) -> None:
        width = config.integer(
            "intermediate_size", "moe_intermediate_size", default=2048
        )  # two names, the first one decides
        config = config.over({"num_key_value_heads": 1}, {"head_dim": 512, "intermediate_size": 1})
        s = Shape.read(config, dropout=0.0)
        q_rank, o_rank = config.integer("q_lora_rank", default=1024), config.integer("o_lora_rank", default=1024)
        groups = config.integer("o_groups", default=8, high=MAX_HEADS)
        config.divides("o_groups", s.heads, groups)
        experts = config.integer("num_local_experts", "n_routed_experts", default=256, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(6, experts), high=experts)
        streams = config.integer("hc_mult", default=4, high=64)
        iterations = config.integer("hc_sinkhorn_iters", default=20, high=1_000)
        index_heads = config.integer("index_n_heads", default=64, high=MAX_HEADS)
        index_width = config.integer("index_head_dim", default=128, high=65_536)
        most = config.integer("index_topk", default=512, high=2**31)
        mlp_bias = config.flag("mlp_bias", False)
        self._half = half = (_rope(config, s.head_dim) + 1) // 2
        small, large = _windows(config)
        s = s.with_rotated(0)

        def compressor(kind: str) -> Module | None:
            if kind == HEAVY:
                return HeavyCompressor(s.hidden, s.head_dim, large)
            if kind == SPARSE:
                indexer = CompressedIndexer(s.hidden, index_width, small, q_rank, index_heads, most)
                return SparseCompressor(s.hidden, s.head_dim, small, indexer)
            return None

        def layer(kind: tuple[str, str]) -> V4Layer:
            attention = CompressedAttention(s, q_rank, 2 * half, groups, o_rank, kind[0], compressor(kind[0]))
            router = RootRouter(s.hidden, experts, chosen, by_token=kind[1] == "hash_moe")
            of_experts = LimitedExperts(s.hidden, width, experts, s.act)
            mlp = V4Moe(router, of_experts, LimitedMLP(s.hidden, width, mlp_bias))
            return V4Layer(s.hidden, attention, mlp, streams, iterations)

        kinds, mlps = _kinds(config, s.layers), _mlps(config, s.layers)
        inner = self.assemble(s, layer, list(zip(kinds, mlps, strict=True)), norm=WholeRMSNorm)
        inner.hc_head = HyperHead(s.hidden, streams)
        self._streams, self._window = streams, config.integer("sliding_window", default=128, high=2**31)
        rotary = 1 + kinds.count(HEAVY) + 2 * kinds.count(SPARSE)
        self.buffer_bytes = s.vocabulary * chosen * 8 * mlps.count("hash_moe") + rotary * (half * 4 * 4)
        self.buffer_numbers = experts * mlps.count("moe")

    def unreached(self) -> Iterable[Parameter]:
        """The indexers' parameters, adapters' included."""
        return [
            p for _, module in self.walk() if isinstance(module, CompressedIndexer) for p in module.all_parameters()
        ]

    def embed(self, t: Tape, call: Call) -> Tensor:
        """The embeddings once for every stream, one mask, and tables for plain and for compressed layers."""
        hidden = lookup(t, self.embedding, call)
        call.masks["full"] = causal_mask(t, call, sliding_window=self._window)
        width = self._streams * self.s.hidden
        streams = ops.copy(t, hidden, "streams", hidden.numel * self._streams, width)
        for name in ("main", "compress"):
            call.shared[f"rotary, {name}"] = half_tables(t, SEQUENCE, self._half, hidden.dtype)
        return streams

    def finish(self, t: Tape, hidden: Tensor) -> Tensor:
        """One stream again, and normed."""
        out: Tensor = self.inner.norm(t, self.inner.hc_head(t, hidden))
        return out

    def attention_for(self, recipe: Recipe) -> str:
        """There is no other."""
        return "eager"

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How attention and experts run."""
        return [*super().assumptions(recipe), ROUTING, MASKED]


def _rope(config: Config, head_dim: int) -> int:
    """Channels of a head that turn."""
    if config.has("partial_rotary_factor"):
        return int(head_dim * config.number("partial_rotary_factor", 0.125, 0, 1))
    return config.integer("qk_rope_head_dim", default=head_dim // 8, high=head_dim)


def _windows(config: Config) -> tuple[int, int]:
    """Positions of a window, of the small ones and of the large ones."""
    given = config.nested("compress_rates") or Config({}, config.transformers)
    found = []
    for older, kind, usual in (("compress_rate_csa", SPARSE, 4), ("compress_rate_hca", HEAVY, 128)):
        named = config.integer(older, default=usual) if config.has(older) else given.integer(kind, default=usual)
        found.append(named)
    return found[0], found[1]


def _kinds(config: Config, layers: int) -> list[str]:
    """How every layer attends."""
    ratios = config.entries.get("compress_ratios")
    if not config.has("layer_types") and isinstance(ratios, (list, tuple)):
        named = {"0": SLIDING, "4": SPARSE, "128": HEAVY}
        translated = [named.get(str(ratio), str(ratio)) for ratio in ratios[:layers]]
        config = config.over({"layer_types": translated})
    default = [HEAVY if index < 2 or index % 2 == 0 else SPARSE for index in range(layers)]
    return layer_kinds(config, ("layer_types",), default, _KINDS)


def _mlps(config: Config, layers: int) -> list[str]:
    """How every layer's experts are chosen."""
    by_token = config.integer("num_hash_layers", default=3, low=0)
    default = ["hash_moe" if index < by_token else "moe" for index in range(layers)]
    return layer_kinds(config, ("mlp_layer_types",), default, _MLPS)

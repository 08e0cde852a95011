"""DeepSeek-V3.2 and GLM-5: latent attention to the keys that an indexer chooses; no gradient passes the indexer.

Source: transformers 5.23, models/{deepseek_v32,glm_moe_dsa}/modeling_*.py. The chosen keys become a mask of every query and
key; kernels that read only what was chosen are not in transformers.
"""

from __future__ import annotations

from collections.abc import Iterable

from loralens.core.architecture.blocks import Attention, GatedMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import causal_mask
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer
from loralens.core.architecture.families.deepseek import LatentAttention
from loralens.core.architecture.families.indexer import Indexer, PairedIndexer
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, SparseMLP
from loralens.core.architecture.moe_sigmoid import GroupRouter
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape

MASKED = (
    "sparse attention runs as transformers' own PyTorch code: every query meets every key under a mask of the chosen ones; "
    "kernels that read the chosen keys alone keep less"
)


class SparseAttention(LatentAttention):
    """Latent attention under a mask of what the indexer chose; without one of its own it takes the layer's before it."""

    def __init__(
        self, s: Shape, q_rank: int, kv_rank: int, widths: tuple[int, int, int], bias: bool, indexer: Indexer | None
    ) -> None:
        super().__init__(s, q_rank, kv_rank, *widths, bias)
        if indexer is not None:
            self.indexer = indexer
        self._own = indexer

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, nope, rope, value = self._s, self._nope, self._rope, self._value
        narrow = self.q_a_layernorm(t, self.q_a_proj(t, x))
        q = self.q_b_proj(t, narrow)
        q_pass, q_rot = ops.split(t, q.view(nope + rope), [nope, rope], "attention: parts of the query")
        both = self.kv_a_proj_with_mqa(t, x)
        latent, k_rot = ops.split(t, both, [self._kv_rank, rope], "attention: latent and rotary key")
        k_pass = self.kv_a_layernorm(t, latent)
        tables = call.shared["rotary"]
        q_rot, k_rot = (
            self.turned(t, q_rot, tables, "attention query"),
            self.turned(t, k_rot, tables, "attention key"),
        )
        query = ops.cat(t, [q_pass, q_rot], nope + rope, "attention query, whole")
        key, v = self.expanded(t, k_pass, k_rot)
        chosen = self.indexer(t, x, narrow, call) if self._own is not None else call.between.received
        assert chosen is not None
        unseen = self._not_chosen(t, chosen, call)
        mask = _both(t, unseen, call)
        kernel = Attention(s.heads, s.heads, nope + rope, value, call.attention, s.attention_dropout, heads_first=True)
        out = kernel(t, query, key, v, mask)
        result: Tensor = self.o_proj(t, out.view(s.heads * value))
        self.hand_on(chosen, call)
        t.end(unseen)
        return result

    def hand_on(self, chosen: Tensor, call: Call) -> None:
        """Nothing."""

    @staticmethod
    def _not_chosen(t: Tape, chosen: Tensor, call: Call) -> Tensor:
        """True where a key is hidden from a query."""
        ones = t.new(TOKENS_BY_SEQUENCE, "bool", 1, "indexer: all keys")
        with t.temporary(chosen.numel, "int64", 1, "indexer: chosen keys"):
            unseen = t.new(TOKENS_BY_SEQUENCE, "bool", 1, "indexer: hidden keys")
        t.end(ones)
        return unseen


def _both(t: Tape, unseen: Tensor, call: Call) -> Tensor:
    """The mask of later positions and of keys that were not chosen."""
    mask, label = call.masks["full"], "attention mask with the chosen keys"
    assert mask is not None
    if mask.dtype != "bool":
        return t.new(TOKENS_BY_SEQUENCE, mask.dtype, 1, label)
    with t.temporary(TOKENS_BY_SEQUENCE, "bool", 1, "indexer: chosen keys, seen"):
        return t.new(TOKENS_BY_SEQUENCE, "bool", 1, label)


class SharingAttention(SparseAttention):
    """What was chosen is handed to the next layer (GLM-5)."""

    def hand_on(self, chosen: Tensor, call: Call) -> None:
        """The next layer may need it."""
        call.between.hand_on_chosen(chosen)


class DeepSeekV32(CausalDecoder):
    """The causal language model."""

    mixes = True
    caches = False
    default_targets: tuple[str, ...] | str = ("q_a_proj", "kv_a_proj_with_mqa")
    expert_targets = EXPERT_TARGETS
    float32_modules = frozenset({"weights_proj"})
    attention: type[SparseAttention] = SparseAttention
    indexer: type[Indexer] = Indexer
    q_rank, index_heads = 1536, 64
    widths = (128, 64, 128)  # of a key without and with rotary embedding, and of a value

    def __init__(self, config: Config) -> None:
        s = Shape.read(config.over({"head_dim": self.widths[1]}))
        nope, rope, value = (
            config.integer(name, default=width, high=65_536)
            for name, width in zip(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), self.widths, strict=True)
        )
        q_rank = config.integer("q_lora_rank", default=self.q_rank)
        kv_rank = config.integer("kv_lora_rank", default=512)
        experts = config.integer("n_routed_experts", "num_local_experts", "num_experts", default=256, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(8, experts), high=experts)
        width = config.integer("moe_intermediate_size", default=2048)
        shared = config.integer("n_shared_experts", default=1, high=MAX_HEADS)
        dense = config.integer("first_k_dense_replace", default=3, low=0, high=100_000)
        mlps = ["dense" if index < dense else "sparse" for index in range(s.layers)]
        mlps = layer_kinds(config, ("mlp_layer_types",), mlps, ("dense", "sparse"))
        heads = config.integer("index_n_heads", default=self.index_heads, high=MAX_HEADS)
        of_key = config.integer("index_head_dim", default=128, high=65_536)
        most = config.integer("index_topk", default=2048, high=2**31)
        bias = config.flag("attention_bias", False)
        s = s.with_rotated(rope // 2 * 2)

        def layer(kind: tuple[str, str]) -> DecoderLayer:
            indexer = self.indexer(s.hidden, q_rank, heads, of_key, rope, most) if kind[1] == "full" else None
            attention = self.attention(s, q_rank, kv_rank, (nope, rope, value), bias, indexer)
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if kind[0] == "sparse":
                router = GroupRouter(s.hidden, experts, chosen, float32=True)
                router.normed = config.flag("norm_topk_prob", True)
                of_experts = Experts(s.hidden, width, experts, s.act)
                beside = GatedMLP(s.hidden, width * shared, act=s.act)
                mlp = SparseMLP(router, of_experts, beside, experts_first=True)
            return DecoderLayer(s, attention, mlp)

        self.assemble(s, layer, list(zip(mlps, self.indexers(config, s.layers), strict=True)))

    def indexers(self, config: Config, layers: int) -> list[str]:
        """Every layer has its own."""
        return ["full"] * layers

    def masks(self, t: Tape, call: Call) -> None:
        """The indexer asks for it in any case."""
        call.masks["full"] = causal_mask(t, call, always=True)

    def unreached(self) -> Iterable[Parameter]:
        """The indexers' parameters, adapters' included."""
        return [p for _, module in self.walk() if isinstance(module, Indexer) for p in module.all_parameters()]

    def attention_for(self, recipe: Recipe) -> str:
        """Flash attention takes no mask of chosen keys."""
        return "sdpa" if recipe.attention == "flash" else recipe.attention

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run, and what the mask is."""
        return [*super().assumptions(recipe), ROUTING, MASKED]


class GlmMoeDsa(DeepSeekV32):
    """GLM-5: some layers take what an earlier one chose."""

    attention = SharingAttention
    indexer = PairedIndexer
    q_rank, index_heads = 2048, 32
    widths = (192, 64, 256)

    def indexers(self, config: Config, layers: int) -> list[str]:
        """By the list, by a pattern of letters, or by a distance."""
        every = max(config.integer("index_topk_freq", default=1, low=0, high=MAX_LAYERS), 1)
        offset = config.integer("index_skip_topk_offset", default=2, low=0, high=MAX_LAYERS)
        found = ["shared" if max(index - offset + 1, 0) % every else "full" for index in range(layers)]
        pattern = config.entries.get("index_topk_pattern")
        if isinstance(pattern, str):
            config = config.over({}, {"indexer_types": [{"F": "full", "S": "shared"}.get(c, c) for c in pattern]})
        return layer_kinds(config, ("indexer_types", "index_topk_pattern"), found, ("full", "shared"))

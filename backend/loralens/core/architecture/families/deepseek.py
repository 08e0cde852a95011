"""DeepSeek V2 and V3: latent attention (keys and values through a narrow projection), shared experts, dense first layers.

Source: transformers 5.23, models/{deepseek_v2,deepseek_v3}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import Attention, GatedMLP, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, Router, SparseMLP
from loralens.core.architecture.moe_sigmoid import GroupRouter
from loralens.core.architecture.rotary import rotate_chunks
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.folding import assign
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import TOKENS
from loralens.core.tape.tape import Tape


class LatentAttention(Module):
    """Multi-head latent attention. `q_rank` is None where the query is projected at once."""

    def __init__(
        self, s: Shape, q_rank: int | None, kv_rank: int, nope: int, rope: int, value: int, bias: bool
    ) -> None:
        width = s.heads * (nope + rope)
        if q_rank is None:
            self.q_proj = Linear(s.hidden, width, name="attention query")
        else:
            self.q_a_proj = Linear(s.hidden, q_rank, bias, name="attention query, narrow")
            self.q_a_layernorm = RMSNorm(q_rank)
            self.q_b_proj = Linear(q_rank, width, name="attention query")
        self.kv_a_proj_with_mqa = Linear(s.hidden, kv_rank + rope, bias, name="attention key and value, narrow")
        self.kv_a_layernorm = RMSNorm(kv_rank)
        self.kv_b_proj = Linear(kv_rank, s.heads * (nope + value), name="attention key and value")
        self.o_proj = Linear(s.heads * value, s.hidden, bias, name="attention output projection")
        self._s, self._q_rank, self._kv_rank, self._nope, self._rope, self._value = (
            s,
            q_rank,
            kv_rank,
            nope,
            rope,
            value,
        )

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, nope, rope, value = self._s, self._nope, self._rope, self._value
        q = self.q_proj(t, x) if self._q_rank is None else self.q_b_proj(t, self.q_a_layernorm(t, self.q_a_proj(t, x)))
        q_pass, q_rot = ops.split(t, q.view(nope + rope), [nope, rope], "attention: parts of the query")
        latent, k_rot = ops.split(
            t, self.kv_a_proj_with_mqa(t, x), [self._kv_rank, rope], "attention: latent and rotary key"
        )
        latent = self.kv_a_layernorm(t, latent)
        tables = call.shared["rotary"]
        q_rot, k_rot = (
            self.turned(t, q_rot, tables, "attention query"),
            self.turned(t, k_rot, tables, "attention key"),
        )
        q = self.scaled(t, ops.cat(t, [q_pass, q_rot], nope + rope, "attention query, whole"))
        expanded = self.kv_b_proj(t, latent).view(nope + value)
        k_pass, v = ops.split(t, expanded, [nope, value], "attention: key and value")
        k = ops.spread_cat(t, k_pass, k_rot, TOKENS * (s.heads * (nope + rope)), nope + rope, "attention key, whole")
        kernel = Attention(s.heads, s.heads, nope + rope, value, call.attention, s.attention_dropout, heads_first=True)
        out = kernel(t, q, k, v, call.masks["full"])
        result: Tensor = self.o_proj(t, out.view(s.heads * value))
        return result

    def expanded(self, t: Tape, latent: Tensor, k_rot: Tensor) -> tuple[Tensor, Tensor]:
        """Key and value of every head; the key is written into an empty tensor, part by part."""
        s, nope, rope, value = self._s, self._nope, self._rope, self._value
        both = self.kv_b_proj(t, latent).view(nope + value)
        k_nope, v = ops.split(t, both, [nope, value], "attention: key and value")
        k_rot = ops.broadcast(t, k_rot, TOKENS * (s.heads * rope), "attention: rotary key of every head", summed=True)
        key = t.new(TOKENS * (s.heads * (nope + rope)), both.dtype, nope + rope, "attention key, whole")
        key = assign(t, key, k_nope, "attention key, whole")
        return assign(t, key, k_rot, "attention key, whole"), v

    def turned(self, t: Tape, x: Tensor, tables: tuple[Tensor, Tensor], label: str) -> Tensor:
        """The rotary part of query or key, turned."""
        return rotate_chunks(t, x, tables, label)

    def scaled(self, t: Tape, q: Tensor) -> Tensor:
        """What a family does to the whole query."""
        return q


class DeepSeek(CausalDecoder):
    """The causal language model; `float32` routing and latent attention alike in V2 and V3."""

    caches = False
    default_targets: tuple[str, ...] | str = ("q_proj", "q_a_proj", "kv_a_proj_with_mqa")
    expert_targets: dict[str, str] | None = EXPERT_TARGETS
    attention: type[LatentAttention] = LatentAttention
    router: type[Router] = GroupRouter
    float32_routing = True
    q_rank: int | None = 1536
    shared, experts, chosen, width, dense = 1, 256, 8, 2048, 3

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, head_dim=64)
        rope = config.integer("qk_rope_head_dim", default=64, high=65_536)
        nope = config.integer("qk_nope_head_dim", default=128, high=65_536)
        value = config.integer("v_head_dim", default=128, high=65_536)
        kv_rank = config.integer("kv_lora_rank", default=512)
        missing = "q_lora_rank" not in config.entries
        q_rank = config.integer("q_lora_rank") if config.has("q_lora_rank") else self.q_rank if missing else None
        experts = config.integer(
            "n_routed_experts", "num_local_experts", "num_experts", default=self.experts, high=MAX_EXPERTS
        )
        chosen = config.integer("num_experts_per_tok", default=self.chosen, high=experts)
        width = config.integer("moe_intermediate_size", default=self.width)
        shared = config.integer("n_shared_experts", default=self.shared, high=MAX_HEADS)
        dense = config.integer("first_k_dense_replace", default=self.dense, low=0, high=100_000)
        bias = config.flag("attention_bias", False)
        s = s.with_rotated(rope // 2 * 2)

        def layer(is_dense: bool) -> DecoderLayer:
            attention = self.attention(s, q_rank, kv_rank, nope, rope, value, bias)
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if not is_dense:
                router = self.router(s.hidden, experts, chosen, float32=self.float32_routing)
                mlp = SparseMLP(
                    router,
                    Experts(s.hidden, width, experts, s.act),
                    GatedMLP(s.hidden, width * shared, act=s.act),
                    experts_first=True,
                )
            return DecoderLayer(s, attention, mlp)

        self.assemble(s, layer, [index < dense for index in range(s.layers)])
        if q_rank is None:
            self.default_targets = ("q_proj", "kv_a_proj_with_mqa")

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]


class DeepSeekV2(DeepSeek):
    """V2 and V2-Lite."""

    router = Router
    shared, experts, chosen, width, dense = 2, 64, 6, 1407, 0

"""MiMo-V2-Flash: sliding layers with sinks and twice the key heads, values narrower than keys, experts chosen by sigmoid.

Source: transformers 5.23, models/mimo_v2_flash/modeling_mimo_v2_flash.py.
"""

from __future__ import annotations

from dataclasses import replace

from loralens.core.architecture.blocks import GatedMLP, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import ROUTING, Experts, SparseMLP
from loralens.core.architecture.moe_sigmoid import GroupRouter
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import Shape, rotated
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.eager import with_sinks
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.tape import Tape

_KINDS = ("sliding_attention", "full_attention")
_ROTATED = 0.334  # of a head, where the config does not say


class MiMoAttention(Module):
    """Eager attention; the values are scaled."""

    def __init__(self, s: Shape, kind: str, value: int, bias: bool) -> None:
        sliding = kind == "sliding_attention"
        self.s = s = s.with_kv_heads(2 * s.kv_heads if sliding else s.kv_heads)
        self.q_proj = Linear(s.hidden, s.heads * s.head_dim, bias, name="attention query")
        self.k_proj = Linear(s.hidden, s.kv_heads * s.head_dim, bias, name="attention key")
        self.v_proj = Linear(s.hidden, s.kv_heads * value, bias, name="attention value")
        self.o_proj = Linear(s.heads * value, s.hidden, name="attention output projection")
        self.sinks = Parameter((s.heads,)) if sliding else None
        self.kind, self._value = kind, value

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s = self.s
        q, k = self.q_proj(t, x).view(s.head_dim), self.k_proj(t, x).view(s.head_dim)
        v = ops.scale(t, self.v_proj(t, x), "attention value, scaled").view(self._value)
        tables = call.shared[f"rotary, {self.kind}"]
        q, k = rotate_part(t, q, k, tables, tables[0].width, pass_empty=True)
        sinks = None if self.sinks is None else t.parameter(self.sinks)
        mask = call.masks[self.kind]
        out = with_sinks(t, q, k, v, mask, sinks, s.heads, s.kv_heads, s.attention_dropout, one_name=True)
        return self.o_proj(t, out.view(s.heads * self._value))


class MiMoLayer(DecoderLayer):
    """Given the tables and the mask of its kind alone."""

    def arguments(self, call: Call) -> Call:
        """Without what is for layers of another kind."""
        kind = self.self_attn.kind
        table = f"rotary, {kind}"
        shared = {name: value for name, value in call.shared.items() if not name.startswith("rotary")}
        return replace(call, shared={**shared, table: call.shared[table]}, masks={kind: call.masks[kind]})


class MiMoV2Flash(CausalDecoder):
    """The causal language model."""

    caches = False

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=4, head_dim=192)
        default = ["sliding_attention" if index and (index + 1) % 6 else "full_attention" for index in range(s.layers)]
        kinds = layer_kinds(config, ("layer_types",), default, _KINDS)
        window = config.integer("sliding_window", default=129, high=2**31)
        if config.has("sliding_window_size"):
            window = config.integer("sliding_window_size", high=2**31) + 1
        mlps = ["dense" if index == 0 else "sparse" for index in range(s.layers)]
        mlps = layer_kinds(config, ("mlp_layer_types",), mlps, ("dense", "sparse"))
        experts = config.integer("n_routed_experts", "num_local_experts", default=256, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(8, experts), high=experts)
        width = config.integer("moe_intermediate_size", default=2048)
        value, bias = config.integer("v_head_dim", default=128, high=65_536), config.flag("attention_bias", False)

        def layer(kind: tuple[str, str]) -> MiMoLayer:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if kind[1] == "sparse":
                router = GroupRouter(s.hidden, experts, chosen, float32=True)
                router.normed = config.flag("norm_topk_prob", True)
                mlp = SparseMLP(router, Experts(s.hidden, width, experts, s.act), experts_first=True)
            return MiMoLayer(s, MiMoAttention(s, kind[0], value, bias), mlp)

        windows = tuple(window if kind == "sliding_attention" else None for kind in kinds)
        self.assemble(s.with_windows(windows), layer, list(zip(kinds, mlps, strict=True)))
        self._rotated = {kind: self._turned(config, kind, s.head_dim) for kind in sorted(set(kinds))}
        self._sparse = "sparse" in mlps
        self.buffer_bytes = sum(turned // 2 * 4 * 2 for turned in self._rotated.values())

    @staticmethod
    def _turned(config: Config, kind: str, head_dim: int, default: float = _ROTATED) -> int:
        tables = config.nested("rope_parameters")
        own = None if tables is None else tables.nested(kind)
        return rotated(Config({}, config.transformers) if own is None else own, head_dim, default)

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Rotary tables by the kind of layer."""
        for kind, turned in self._rotated.items():
            call.shared[f"rotary, {kind}"] = Rotary(turned).tables(t, hidden)

    def masks(self, t: Tape, call: Call) -> None:
        """Masks under the names of the kinds of layers."""
        super().masks(t, call)
        for kind, name in (("sliding_attention", "sliding"), ("full_attention", "full")):
            if name in call.masks:
                call.masks[kind] = call.masks.pop(name)

    def attention_for(self, recipe: Recipe) -> str:
        """Sinks need the eager implementation."""
        return "eager"

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), *([ROUTING] if self._sparse else [])]

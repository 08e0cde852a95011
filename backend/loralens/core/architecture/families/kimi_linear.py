"""Kimi Linear and Ling: delta attention between layers of latent attention, experts.

Source: transformers 5.23, models/{kimi_linear,bailing_hybrid}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import Attention, GatedMLP, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer
from loralens.core.architecture.families.deepseek import LatentAttention
from loralens.core.architecture.families.delta import KINDS
from loralens.core.architecture.families.fused_mixers import not_modelled
from loralens.core.architecture.families.kimi_rule import CHUNK, KimiRule
from loralens.core.architecture.families.state_space import (
    MAX_GROUPS,
    MAX_KERNEL,
    DepthwiseConvolution,
    hide_padding,
    layer_kinds,
    mixers_as,
)
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import ROUTING, Experts, SparseMLP
from loralens.core.architecture.moe_sigmoid import GroupRouter
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import derivatives, ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import exp, softplus, where
from loralens.core.tape.tape import Tape


class SigmoidGatedNorm(RMSNorm):
    """Normed and weighted in float32, times the gate's sigmoid."""

    def forward(self, t: Tape, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Shapes: x and gate (rows, width) to the same."""
        assert gate is not None
        dtype = x.dtype
        x = self.normalize(t, ops.cast(t, x, "float32", "norm: input in float32"))
        weight = ops.cast(t, t.parameter(self.weight), "float32", "norm: weight in float32")
        x = t.replace(x, ops.mul(t, x, weight, "norm: output in float32"))
        gate = ops.cast(t, gate, "float32", "norm: gate in float32")
        gate = t.replace(gate, ops.sigmoid(t, gate, "norm: sigmoid of the gate"))
        x = t.replace(x, ops.mul(t, x, gate, "norm: gated"))
        t.end(gate)
        return ops.cast(t, x, dtype, "norm: output")


class KimiGate(Module):
    """The forget gate, through a narrow projection. Shapes: (rows, hidden) to (rows, heads * width), float32."""

    def __init__(self, hidden: int, width: int, heads: int) -> None:
        self.f_a_proj = Linear(hidden, width, name="forget gate, narrow")
        self.f_b_proj = Linear(width, width * heads, name="forget gate")
        self.dt_bias = Parameter((width * heads,))
        self.A_log = Parameter((1, 1, heads, 1))
        self.multiplies = False

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """`-exp(A_log) * log(1 + exp(g))`, g itself where it is large."""
        gate = t.local(self.f_b_proj(t, self.f_a_proj(t, x)))
        wide = ops.cast(t, gate, "float32", "decay: step in float32")
        bias = ops.cast(t, t.parameter(self.dt_bias), "float32", "decay: bias in float32")
        g = ops.add(t, wide, bias, "decay: step and bias")
        t.end(wide)
        rate = exp(t, ops.cast(t, t.parameter(self.A_log), "float32", "decay: A in float32"), "decay: exp(A)")
        large = t.new(g.numel, "bool", g.width, "decay: large steps")
        raised = exp(t, g, "decay: exp of the step")
        shifted = ops.shift(t, raised, "decay: 1 + exp of the step")
        t.end(raised)
        soft = derivatives.log(t, shifted, "decay: log of it")
        t.end(shifted)
        step = where(t, large, g, soft, "decay: step")
        t.end(soft, large)
        return ops.mul(t, step, ops.scale(t, rate, "decay: -exp(A)"), "decay")


class KimiDelta(Module):
    """Kimi's delta attention."""

    def __init__(self, hidden: int, width: int, heads: int, kernel: int, act: str = "silu") -> None:
        for name in "qkv":
            setattr(self, f"{name}_proj", Linear(hidden, width * heads, name=f"linear attention {name}"))
        self.conv1d = DepthwiseConvolution(3 * width * heads, kernel, False)
        self.forget_gate: Module = KimiGate(hidden, width, heads)
        self.b_proj = Linear(hidden, heads, name="linear attention b")
        self.g_a_proj = Linear(hidden, width, name="output gate, narrow")
        self.g_b_proj = Linear(width, width * heads, name="output gate")
        self.o_norm = SigmoidGatedNorm(width)
        self.o_proj = Linear(width * heads, hidden, name="linear attention out")
        self._rule, self._wide, self._act = KimiRule(heads, width), width * heads, act

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        if t.kernels.fused_mixers:
            not_modelled("chunk_kda")
        wide, width = self._wide, self._rule.width
        x = hide_padding(t, x, call)
        parts = [self.q_proj(t, x), self.k_proj(t, x), self.v_proj(t, x)]
        mixed = ops.cat(t, parts, 3 * wide, "linear attention: query, key and value")
        t.end(*parts)
        mixed = self.conv1d(t, mixed, self._act)
        q, k, v = ops.split(t, mixed, [wide] * 3, "linear attention: query, key and value")
        g = self.forget_gate(t, x)
        beta = ops.sigmoid(t, self.b_proj(t, x), "linear attention: beta")
        out = self._rule(t, q, k, v, g, beta)
        gate = self.gate(t, x)
        result = self.o_norm(t, out.view(width), gate.view(width)).view(wide)
        projected: Tensor = self.o_proj(t, result)
        return projected

    def gate(self, t: Tape, x: Tensor) -> Tensor:
        """Of the result, through a narrow projection."""
        found: Tensor = self.g_b_proj(t, self.g_a_proj(t, x))
        return found


class KimiAttention(LatentAttention):
    """Latent attention without rotary embedding."""

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, nope, rope, value = self._s, self._nope, self._rope, self._value
        q = self.q_proj(t, x) if self._q_rank is None else self.q_b_proj(t, self.q_a_layernorm(t, self.q_a_proj(t, x)))
        both = self.kv_a_proj_with_mqa(t, x)
        latent, k_rot = ops.split(t, both, [self._kv_rank, rope], "attention: latent and rotary key")
        latent = self.kv_a_layernorm(t, latent)
        key, v = self.expanded(t, latent, k_rot)
        kernel = Attention(s.heads, s.heads, nope + rope, value, call.attention, s.attention_dropout)
        out = kernel(t, q.view(nope + rope), key, v, call.masks["full"])
        result: Tensor = self.o_proj(t, out.view(s.heads * value))
        return result


class KimiLinear(CausalDecoder):
    """Three delta layers, then latent attention; experts from the second layer on."""

    mixes = True
    caches = False
    turn = CHUNK
    default_targets: tuple[str, ...] | str = ("q_proj", "v_proj")

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=32, head_dim=64).with_rotated(0)
        linear = config.nested("linear_attn_config") or Config({}, config.transformers)
        width = linear.integer("head_dim", default=config.integer("linear_head_dim", default=128), high=MAX_GROUPS)
        heads = linear.integer("num_heads", default=config.integer("linear_num_heads", default=32), high=MAX_HEADS)
        kernel = config.integer("linear_conv_kernel_dim", default=4, high=MAX_KERNEL)
        kernel = linear.integer("short_conv_kernel_size", default=kernel, high=MAX_KERNEL)
        default = ["full_attention" if index and index % 4 == 0 else "linear_attention" for index in range(s.layers)]
        if linear.has("full_attn_layers") and linear.has("kda_layers"):
            full = set(linear.integers("full_attn_layers", MAX_LAYERS) or ())
            default = ["full_attention" if index + 1 in full else "linear_attention" for index in range(s.layers)]
        kinds = layer_kinds(config, ("layer_types",), default, KINDS)
        dense = config.integer("first_k_dense_replace", default=1, low=0, high=MAX_LAYERS)
        mlps = ["dense" if index < dense else "sparse" for index in range(s.layers)]
        mlps = layer_kinds(config, ("mlp_layer_types",), mlps, ("dense", "sparse"))

        def layer(kind: tuple[str, str]) -> DecoderLayer:
            attention: Module = KimiDelta(s.hidden, width, heads, kernel, s.act)
            if kind[0] == "full_attention":
                attention = _latent(config, s, KimiAttention)
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            return DecoderLayer(s, attention, _kimi_experts(config, s) if kind[1] == "sparse" else mlp)

        self.assemble(s, layer, list(zip(kinds, mlps, strict=True)))

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run, and how the experts do."""
        return [*super().assumptions(recipe), mixers_as(recipe), ROUTING]


class BailingGate(Module):
    """The forget gate in one projection. Shapes: (rows, hidden) to (rows, heads * width)."""

    def __init__(self, hidden: int, width: int, heads: int, *, bounded: bool = True) -> None:
        self.A_log = Parameter((heads,))
        self.dt_bias = Parameter((width * heads,))
        self.f_proj = Linear(hidden, width * heads, name="forget gate")
        self.A_log.held_in = self.dt_bias.held_in = "float32"
        self._bounded = bounded

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """A bound times a sigmoid, or `-exp(A_log) * softplus`."""
        given = ops.cast(t, self.f_proj(t, x), "float32", "decay: step in float32")
        given = t.replace(given, ops.add(t, given, t.parameter(self.dt_bias), "decay: step and bias"))
        rate = exp(t, t.parameter(self.A_log), "decay: exp(A)")
        if self._bounded:
            gate = ops.sigmoid(t, ops.mul(t, given, rate, "decay: A * step"), "decay: sigmoid")
            gate = ops.scale(t, gate, "decay")
        else:
            gate = ops.mul(t, softplus(t, given, "decay: step"), ops.scale(t, rate, "decay: -exp(A)"), "decay")
        return ops.cast(t, gate, x.dtype, "decay, cast back")


class BailingDelta(KimiDelta):
    """Ling's delta attention: gates without a narrow middle."""

    def __init__(self, hidden: int, width: int, heads: int, kernel: int, act: str, *, bounded: bool) -> None:
        super().__init__(hidden, width, heads, kernel, act)
        del self.g_a_proj, self.g_b_proj
        self.g_proj = Linear(hidden, width * heads, name="output gate")
        self.forget_gate = BailingGate(hidden, width, heads, bounded=bounded)
        self.conv1d.weight.held_in = "float32"

    def gate(self, t: Tape, x: Tensor) -> Tensor:
        """Of the result."""
        found: Tensor = self.g_proj(t, x)
        return found


class BailingAttention(LatentAttention):
    """Latent attention with a gate for each head."""

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        s, nope, rope, value = self._s, self._nope, self._rope, self._value
        q = self.q_proj(t, x)
        q_pass, q_rot = ops.split(t, q.view(nope + rope), [nope, rope], "attention: parts of the query")
        both = self.kv_a_proj_with_mqa(t, x)
        latent, k_rot = ops.split(t, both, [self._kv_rank, rope], "attention: latent and rotary key")
        latent = self.kv_a_layernorm(t, latent)
        tables = call.shared["rotary"]
        q_rot, k_rot = (
            self.turned(t, q_rot, tables, "attention query"),
            self.turned(t, k_rot, tables, "attention key"),
        )
        query = ops.cat(t, [q_pass, q_rot], nope + rope, "attention query, whole")
        key, v = self.expanded(t, latent, k_rot)
        kernel = Attention(s.heads, s.heads, nope + rope, value, call.attention, s.attention_dropout, heads_first=True)
        out = kernel(t, query, key, v, call.masks["full"])
        gate = ops.cast(t, self.g_proj(t, x), "float32", "attention: gate in float32")
        gate = ops.cast(t, ops.sigmoid(t, gate, "attention: sigmoid of the gate"), x.dtype, "attention: gate")
        out = t.replace(out, ops.mul(t, out.view(value), gate, "attention: gated result"))
        result: Tensor = self.o_proj(t, out.view(s.heads * value))
        return result


class BailingHybrid(KimiLinear):
    """Ling 2.5 and 3: delta layers, and gated latent attention in every sixth."""

    def __init__(self, config: Config) -> None:
        rope = config.integer("qk_rope_head_dim", default=64, high=MAX_GROUPS)
        s = Shape.read(config, kv_heads=32, head_dim=128).with_rotated(rope // 2 * 2)
        kernel = config.integer("short_conv_kernel_size", default=4, high=MAX_KERNEL)
        every = config.integer("layer_group_size", default=6, high=MAX_LAYERS)
        default = ["linear_attention" if (index + 1) % every else "full_attention" for index in range(s.layers)]
        kinds = layer_kinds(config, ("layer_types",), default, KINDS)
        dense = config.integer("first_k_dense_replace", default=2, low=0, high=MAX_LAYERS)
        mlps = ["dense" if index < dense else "sparse" for index in range(s.layers)]
        mlps = layer_kinds(config, ("mlp_layer_types",), mlps, ("dense", "sparse"))
        bounded = config.flag("kda_safe_gate", True)
        if config.number("mtp_loss_scaling_factor", 0.0) > 0:
            raise UnsupportedArchitecture(
                "a loss of further tokens (config.mtp_loss_scaling_factor) is not modelled",
                field="config.mtp_loss_scaling_factor",
            )

        def layer(kind: tuple[str, str]) -> DecoderLayer:
            attention: Module = BailingDelta(s.hidden, s.head_dim, s.heads, kernel, s.act, bounded=bounded)
            if kind[0] == "full_attention":
                attention = _latent(config.over({"q_lora_rank": None}), s, BailingAttention)
                attention.g_proj = Linear(s.hidden, s.heads, name="attention gate")
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            return DecoderLayer(s, attention, _kimi_experts(config, s, 512, 768) if kind[1] == "sparse" else mlp)

        self.assemble(s, layer, list(zip(kinds, mlps, strict=True)))


def _latent(config: Config, s: Shape, kind: type[LatentAttention] = LatentAttention) -> LatentAttention:
    return kind(
        s,
        config.integer("q_lora_rank") if config.has("q_lora_rank") else None,
        config.integer("kv_lora_rank", default=512),
        config.integer("qk_nope_head_dim", default=128, high=MAX_GROUPS),
        config.integer("qk_rope_head_dim", default=64, high=MAX_GROUPS),
        config.integer("v_head_dim", default=128, high=MAX_GROUPS),
        config.flag("attention_bias", False),
    )


def _kimi_experts(config: Config, s: Shape, experts_by_default: int = 256, width: int = 1024) -> SparseMLP:
    number = config.integer("num_local_experts", "num_experts", default=experts_by_default, high=MAX_EXPERTS)
    width = config.integer("moe_intermediate_size", default=width)
    shared = config.integer("n_shared_experts", "num_shared_experts", default=1, high=MAX_HEADS)
    chosen = config.integer("num_experts_per_tok", "num_experts_per_token", default=min(8, number), high=number)
    router, experts = GroupRouter(s.hidden, number, chosen, float32=True), Experts(s.hidden, width, number, s.act)
    router.normed = config.flag("norm_topk_prob", config.flag("moe_renormalize", True))
    return SparseMLP(router, experts, GatedMLP(s.hidden, width * shared, act=s.act), experts_first=True)

"""Gated delta networks between attention layers: Qwen3-Next and Qwen3.5.

Source: transformers 5.23, models/{qwen3_next,qwen3_5,qwen3_5_moe}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, GemmaRMSNorm, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.families.delta_rule import CHUNK, DeltaRule
from loralens.core.architecture.families.mixed_layer import MixedLayer
from loralens.core.architecture.families.qwen_positions import section_tables
from loralens.core.architecture.families.state_space import (
    MAX_GROUPS,
    MAX_KERNEL,
    DepthwiseConvolution,
    hide_padding,
    layer_kinds,
    mixers_as,
)
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import EXPERT_TARGETS, ROUTING, Experts, Router
from loralens.core.architecture.moe_shared import GatedSharedMLP
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.folding import summed
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import divide_by, exp, softplus
from loralens.core.tape.tape import Tape

KINDS = ("linear_attention", "full_attention")


class DeltaWidths:
    """Sizes of a delta layer: heads and their widths for keys and for values."""

    def __init__(self, key_heads: int, value_heads: int, key: int, value: int, kernel: int) -> None:
        self.value_heads, self.value_dim, self.kernel = value_heads, value, kernel
        self.rule = DeltaRule(key_heads, value_heads, key, value)
        self.keys, self.values = key_heads * key, value_heads * value

    @staticmethod
    def read(config: Config, key_heads: int, value_heads: int, key: int, value: int | None) -> DeltaWidths:
        """From a config; the numbers are the family's defaults, values twice as wide as keys where it has none."""
        key_heads = config.integer("linear_num_key_heads", default=key_heads, high=MAX_HEADS)
        key = config.integer("linear_key_head_dim", default=key, high=MAX_GROUPS)
        return DeltaWidths(
            key_heads,
            config.integer("linear_num_value_heads", default=value_heads, high=MAX_HEADS),
            key,
            config.integer("linear_value_head_dim", default=value or 2 * key, high=2 * MAX_GROUPS),
            config.integer("linear_conv_kernel_dim", default=4, high=MAX_KERNEL),
        )


class GatedNorm(RMSNorm):
    """Normed, times the weight, then times the activated gate in float32."""

    def forward(self, t: Tape, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """Shapes: x and gate (rows, width) to the same."""
        assert gate is not None
        dtype = x.dtype
        x = ops.cast(t, x, "float32", "norm: input in float32")
        x = self.normalize(t, x)
        x = self._weighted(t, x, dtype)
        gate = ops.silu(t, ops.cast(t, gate, "float32", "norm: gate in float32"), "norm: activated gate")
        x = ops.mul(t, x, gate, "norm: gated")
        t.end(gate)
        return ops.cast(t, x, dtype, "norm: output")


class DeltaNet(Module):
    """A gated delta net. Qwen3.5: query, key and value in one matrix, gates in three."""

    def __init__(self, hidden: int, w: DeltaWidths, act: str) -> None:
        self.conv1d = DepthwiseConvolution(2 * w.keys + w.values, w.kernel, False)
        self.dt_bias = Parameter((w.value_heads,))
        self.A_log = Parameter((w.value_heads,))
        self.norm = GatedNorm(w.value_dim)
        self.out_proj = Linear(w.values, hidden, name="linear attention out")
        for name, width in self.widths(w).items():
            setattr(self, f"in_proj_{name}", Linear(hidden, width, name=f"linear attention {name}"))
        self._w, self._act = w, act

    def widths(self, w: DeltaWidths) -> dict[str, int]:
        """The projections."""
        return {"qkv": 2 * w.keys + w.values, "z": w.values, "b": w.value_heads, "a": w.value_heads}

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, key and value side by side, gate, and what makes beta and the decay."""
        return self.in_proj_qkv(t, x), self.in_proj_z(t, x), self.in_proj_b(t, x), self.in_proj_a(t, x)

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        w = self._w
        x = hide_padding(t, x, call)
        mixed, z, b, a = self.project(t, x)
        mixed = self.conv1d(t, mixed, self._act)
        q, k, v = ops.split(t, mixed, [w.keys, w.keys, w.values], "linear attention: query, key and value")
        beta = ops.sigmoid(t, b, "linear attention: beta")
        g = self._decay(t, a)
        out = w.rule(t, q, k, v, g, beta)
        out = self.norm(t, out.view(w.value_dim), z.view(w.value_dim)).view(w.values)
        return self.out_proj(t, out)

    def _decay(self, t: Tape, a: Tensor) -> Tensor:
        """`-exp(A_log) * softplus(a + dt_bias)`, in float32."""
        rate = exp(t, ops.cast(t, t.parameter(self.A_log), "float32", "decay: A in float32"), "decay: exp(A)")
        rate = ops.scale(t, rate, "decay: -exp(A)")
        a = ops.cast(t, a, "float32", "decay: step in float32")
        step = softplus(t, ops.add(t, a, t.parameter(self.dt_bias), "decay: step and bias"), "decay: step")
        return ops.mul(t, step, rate, "decay")


class JoinedDeltaNet(DeltaNet):
    """Qwen3-Next: two matrices, whose results are in groups of a key's head and its values' heads."""

    def widths(self, w: DeltaWidths) -> dict[str, int]:
        """The projections."""
        return {"qkvz": 2 * w.keys + 2 * w.values, "ba": 2 * w.value_heads}

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cut out of their groups, each a copy."""
        w = self._w
        fused = t.local(self.in_proj_qkvz(t, x))
        scalars = t.local(self.in_proj_ba(t, x))
        q, k, v, z = ops.split(t, fused, [w.keys, w.keys, w.values, w.values], "linear attention: parts")
        b, a = ops.split(t, scalars, [w.value_heads, w.value_heads], "linear attention: beta and step")
        v, z = ops.copy(t, v, "linear attention: value"), ops.copy(t, z, "linear attention: gate")
        b, a = ops.copy(t, b, "linear attention: beta"), ops.copy(t, a, "linear attention: step")
        q, k = ops.copy(t, q, "linear attention: query"), ops.copy(t, k, "linear attention: key")
        return ops.cat(t, [q, k, v], 2 * w.keys + w.values, "linear attention: query, key and value"), z, b, a


class DividedRouter(Router):
    """The chosen scores are divided by their sum, which keeps both."""

    normed = True

    def weights(self, t: Tape, values: Tensor) -> Tensor:
        """Their shares; the scores themselves where the config says so."""
        if not self.normed:
            return values
        return divide_by(t, values, summed(t, values, "router: sum of the chosen scores"), "router: weights")


class GatedAttention(SelfAttention):
    """The query's projection holds a gate as wide as the query; norms on query and key."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        self.q_proj = Linear(s.hidden, 2 * s.heads * s.head_dim, bias, name="attention query and gate")
        self.q_norm = GemmaRMSNorm(s.head_dim)
        self.k_norm = GemmaRMSNorm(s.head_dim)
        self.heads_first = 0 < s.rotated < s.head_dim

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        width, wide = self.s.head_dim, self.s.heads * self.s.head_dim
        q, gate = ops.split(t, self.q_proj(t, x).view(2 * width), [width, width], "attention query and gate")
        gate = ops.copy(t, gate, "attention gate").view(wide)
        q = self.q_norm(t, q)
        k = self.k_norm(t, self.k_proj(t, x).view(width))
        v = self.v_proj(t, x).view(width)
        q, k = self.position(t, q, k, call)
        out = self.kernel(call)(t, q, k, v, call.masks[self.mask]).view(wide)
        out = ops.mul(t, out, ops.sigmoid(t, gate, "attention gate, sigmoid"), "attention result, gated")
        return self.o_proj(t, out)


class DeltaDecoder(CausalDecoder):
    """Delta layers and attention layers."""

    mixes = True
    kv_heads, key_heads, value_heads = 4, 16, 32
    linear: type[DeltaNet] = DeltaNet
    turn = CHUNK
    always_normed = False  # whatever the config says of the routers' weights
    caches = False

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=self.kv_heads, head_dim=256, rotary=0.25, intermediate=self.unused(config))
        every = config.integer("full_attention_interval", default=4, high=MAX_LAYERS)
        default = ["linear_attention" if (index + 1) % every else "full_attention" for index in range(s.layers)]
        kinds = layer_kinds(config, ("layer_types",), default, KINDS)
        w = DeltaWidths.read(config, self.key_heads, self.value_heads, 128, 128)
        bias = config.flag("attention_bias", False)
        sparse = self.sparse(config, s.layers)

        def layer(kind: tuple[str, bool]) -> MixedLayer:
            mlp = self.experts(config, s) if kind[1] else GatedMLP(s.hidden, s.intermediate, act=s.act)
            if kind[0] == "linear_attention":
                return MixedLayer(s, "linear_attn", self.linear(s.hidden, w, s.act), mlp, GemmaRMSNorm)
            return MixedLayer(s, "self_attn", GatedAttention(s, bias), mlp, GemmaRMSNorm)

        self._sparse = any(sparse)
        self.assemble(s, layer, list(zip(kinds, sparse, strict=True)), norm=GemmaRMSNorm)

    def unused(self, config: Config) -> int | None:
        """A width for the dense MLP where the family has none."""
        return None

    def sparse(self, config: Config, layers: int) -> list[bool]:
        """Which layers have experts."""
        return [False] * layers

    def experts(self, config: Config, s: Shape) -> Module:
        """Router, experts and a gated shared expert."""
        number = config.integer("num_experts", "num_local_experts", default=self.default_experts, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=min(8, number), high=number)
        width = config.integer("moe_intermediate_size", default=512)
        shared = config.integer("shared_expert_intermediate_size", default=512)
        experts, beside = Experts(s.hidden, width, number, s.act), GatedMLP(s.hidden, shared, act=s.act)
        router = DividedRouter(s.hidden, number, chosen, casts_back=True)
        router.normed = self.always_normed or config.flag("norm_topk_prob", True)
        return GatedSharedMLP(router, experts, beside, s.hidden)

    default_experts = 256

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run, and how the experts do."""
        return [*super().assumptions(recipe), mixers_as(recipe), *([ROUTING] if self._sparse else [])]


class Qwen35(DeltaDecoder):
    """Qwen3.5, dense; three kinds of position."""

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """By three kinds of position, whose angles take each other's places."""
        call.shared["rotary"] = section_tables(t, hidden, call, self.s.rotated, interleaved=True)


class Qwen35Moe(Qwen35):
    """Qwen3.5 with experts in every layer."""

    always_normed = True
    kv_heads = 2

    def unused(self, config: Config) -> int | None:
        """No layer has a dense MLP."""
        return 1

    def sparse(self, config: Config, layers: int) -> list[bool]:
        """All of them."""
        return [True] * layers


class Qwen3Next(DeltaDecoder):
    """Qwen3-Next."""

    kv_heads, default_experts = 2, 512
    linear = JoinedDeltaNet
    expert_targets = EXPERT_TARGETS

    def unused(self, config: Config) -> int | None:
        """The width of dense layers."""
        return 5632

    def sparse(self, config: Config, layers: int) -> list[bool]:
        """All but those that the config lists, in steps."""
        dense = set(config.integers("mlp_only_layers", MAX_LAYERS) or ())
        step = config.integer("decoder_sparse_step", default=1, high=2**20)
        none = config.has("num_experts") and config.integer("num_experts", low=0, high=MAX_EXPERTS) == 0
        return [not none and index not in dense and (index + 1) % step == 0 for index in range(layers)]

"""Kimi Linear and Ling: delta attention between layers of latent attention, experts; counted, not walked.

Source: transformers 5.23, models/{kimi_linear,bailing_hybrid}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.counting import CountedDecoder
from loralens.core.architecture.decoder import DecoderLayer
from loralens.core.architecture.families.deepseek import LatentAttention
from loralens.core.architecture.families.delta import KINDS
from loralens.core.architecture.families.state_space import MAX_GROUPS, MAX_KERNEL, DepthwiseConvolution, layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import Experts, Router, SparseMLP
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.tape.parameter import Parameter


class KimiGate(Module):
    """The forget gate, through a narrow projection."""

    def __init__(self, hidden: int, width: int, heads: int) -> None:
        self.f_a_proj = Linear(hidden, width, name="forget gate, narrow")
        self.f_b_proj = Linear(width, width * heads, name="forget gate")
        self.dt_bias = Parameter((width * heads,))
        self.A_log = Parameter((1, 1, heads, 1))


class KimiDelta(Module):
    """Kimi's delta attention."""

    def __init__(self, hidden: int, width: int, heads: int, kernel: int) -> None:
        for name in "qkv":
            setattr(self, f"{name}_proj", Linear(hidden, width * heads, name=f"linear attention {name}"))
        self.conv1d = DepthwiseConvolution(3 * width * heads, kernel, False)
        self.forget_gate: Module = KimiGate(hidden, width, heads)
        self.b_proj = Linear(hidden, heads, name="linear attention b")
        self.g_a_proj = Linear(hidden, width, name="output gate, narrow")
        self.g_b_proj = Linear(width, width * heads, name="output gate")
        self.o_norm = RMSNorm(width)
        self.o_proj = Linear(width * heads, hidden, name="linear attention out")


class KimiLinear(CountedDecoder):
    """Three delta layers, then latent attention; experts from the second layer on."""

    family = "kimi_linear"

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=32, head_dim=64)
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
            attention: Module = KimiDelta(s.hidden, width, heads, kernel)
            if kind[0] == "full_attention":
                attention = _latent(config, s)
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            return DecoderLayer(s, attention, _kimi_experts(config, s) if kind[1] == "sparse" else mlp)

        self.assemble(s, layer, list(zip(kinds, mlps, strict=True)))


class BailingGate(Module):
    """The forget gate in one projection."""

    def __init__(self, hidden: int, width: int, heads: int) -> None:
        self.A_log = Parameter((heads,))
        self.dt_bias = Parameter((width * heads,))
        self.f_proj = Linear(hidden, width * heads, name="forget gate")


class BailingDelta(KimiDelta):
    """Ling's delta attention: gates without a narrow middle."""

    def __init__(self, hidden: int, width: int, heads: int, kernel: int) -> None:
        super().__init__(hidden, width, heads, kernel)
        del self.g_a_proj, self.g_b_proj
        self.g_proj = Linear(hidden, width * heads, name="output gate")
        self.forget_gate = BailingGate(hidden, width, heads)


class BailingHybrid(CountedDecoder):
    """Ling 2.5 and 3: delta layers, and gated latent attention in every sixth."""

    family = "bailing_hybrid"

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=32, head_dim=128)
        kernel = config.integer("short_conv_kernel_size", default=4, high=MAX_KERNEL)
        every = config.integer("layer_group_size", default=6, high=MAX_LAYERS)
        default = ["linear_attention" if (index + 1) % every else "full_attention" for index in range(s.layers)]
        kinds = layer_kinds(config, ("layer_types",), default, KINDS)
        dense = config.integer("first_k_dense_replace", default=2, low=0, high=MAX_LAYERS)
        mlps = ["dense" if index < dense else "sparse" for index in range(s.layers)]
        mlps = layer_kinds(config, ("mlp_layer_types",), mlps, ("dense", "sparse"))

        def layer(kind: tuple[str, str]) -> DecoderLayer:
            attention: Module = BailingDelta(s.hidden, s.head_dim, s.heads, kernel)
            if kind[0] == "full_attention":
                attention = _latent(config, s)
                attention.g_proj = Linear(s.hidden, s.heads, name="attention gate")
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            return DecoderLayer(s, attention, _kimi_experts(config, s, 512, 768) if kind[1] == "sparse" else mlp)

        self.assemble(s, layer, list(zip(kinds, mlps, strict=True)))


def _latent(config: Config, s: Shape) -> LatentAttention:
    return LatentAttention(
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
    router, experts = Router(s.hidden, number, 1), Experts(s.hidden, width, number, s.act)
    return SparseMLP(router, experts, GatedMLP(s.hidden, width * shared, act=s.act))

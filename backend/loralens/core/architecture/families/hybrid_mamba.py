"""Decoders that alternate state-space and attention layers: Jamba, Bamba, Falcon-H1, Granite 4; counted, not walked.

Source: transformers 5.23, models/{jamba,bamba,falcon_h1,granitemoehybrid}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.counting import CountedDecoder
from loralens.core.architecture.decoder import Names, SelfAttention
from loralens.core.architecture.families.granite_moe import GraniteSharedMLP
from loralens.core.architecture.families.state_space import (
    MAX_GROUPS,
    MAX_KERNEL,
    REFUSED,
    HeadedMixer,
    SelectiveMixer,
    headed_mixer,
    layer_kinds,
)
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import Experts, Router, SparseMLP
from loralens.core.architecture.shape import Shape

_FINAL = Names(norm="final_layernorm")
_KINDS = ("linear_attention", "full_attention")


class HybridLayer(Module):
    """A mixer or attention, then an MLP; two norms."""

    def __init__(self, s: Shape, mixer: Module | None, attention: Module | None, mlp: Module) -> None:
        if mixer is not None:
            self.mamba = mixer
        if attention is not None:
            self.self_attn = attention
        self.feed_forward = mlp
        self.input_layernorm = RMSNorm(s.hidden)
        self.pre_ff_layernorm = RMSNorm(s.hidden)


class Jamba(CountedDecoder):
    """Mamba with norms on its parameters, attention every eighth layer, experts every second."""

    family = "jamba"

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8)
        state, kernel = config.integer("mamba_d_state", default=16), config.integer("mamba_d_conv", default=4)
        inner = config.integer("mamba_expand", default=2, high=1_024) * s.hidden
        given = config.entries.get("mamba_dt_rank", "auto")
        rank = -(-s.hidden // 16) if given == "auto" else config.integer("mamba_dt_rank")
        bias, conv_bias = config.flag("mamba_proj_bias", False), config.flag("mamba_conv_bias", True)
        experts = config.integer("num_experts", "num_local_experts", default=16, high=MAX_EXPERTS)
        chosen = config.integer("num_experts_per_tok", default=2, high=max(experts, 2))
        attention = _pattern(config, "attn_layer", 8, 4)
        sparse = _pattern(config, "expert_layer", 2, 1)

        def layer(kind: tuple[bool, bool]) -> Module:
            mlp: Module = GatedMLP(s.hidden, s.intermediate, act=s.act)
            if kind[1] and experts > 1:
                router = Router(s.hidden, experts, chosen)
                mlp = SparseMLP(router, Experts(s.hidden, s.intermediate, experts, s.act), router_name="router")
            if kind[0]:
                return HybridLayer(s, None, SelfAttention(s), mlp)
            mixer = SelectiveMixer(s.hidden, inner, state, rank, kernel, bias, conv_bias)
            for name, width in (("dt", rank), ("b", state), ("c", state)):
                setattr(mixer, f"{name}_layernorm", RMSNorm(width))
            return HybridLayer(s, mixer, None, mlp)

        kinds = [(index % attention[0] == attention[1], index % sparse[0] == sparse[1]) for index in range(s.layers)]
        self.assemble(s, layer, kinds, names=_FINAL)


def _pattern(config: Config, name: str, period: int, offset: int) -> tuple[int, int]:
    every = config.integer(f"{name}_period", default=period, high=MAX_LAYERS)
    return every, config.integer(f"{name}_offset", default=offset, low=0, high=every - 1)


class Bamba(CountedDecoder):
    """Mamba 2, and attention in the layers that the config lists."""

    family = "bamba"

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8)
        listed = set(config.integers("attn_layer_indices", MAX_LAYERS) or ())
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(attends: bool) -> Module:
            mlp = GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act)
            if attends:
                return HybridLayer(s, None, SelfAttention(s, bias=bias, output_bias=bias), mlp)
            return HybridLayer(s, headed_mixer(config, s.hidden), None, mlp)

        self.assemble(s, layer, [index in listed for index in range(s.layers)], names=_FINAL)


class FalconH1(CountedDecoder):
    """Mamba 2 and attention side by side in every layer."""

    family = "falcon_h1"
    refused_targets = REFUSED

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8)
        given = "mamba_d_ssm" not in config.entries or config.has("mamba_d_ssm")
        expanded = config.integer("mamba_expand", default=2, high=1_024) * s.hidden
        inner = config.integer("mamba_d_ssm", default=1024) if given else expanded
        heads = config.integer("mamba_n_heads", default=128, high=MAX_GROUPS)
        config.divides("mamba_n_heads", inner, heads)
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(_: object) -> Module:
            mixer = HeadedMixer(
                s.hidden,
                inner,
                heads,
                config.integer("mamba_d_state", default=256),
                config.integer("mamba_n_groups", default=1, high=MAX_GROUPS),
                config.integer("mamba_d_conv", default=4, high=MAX_KERNEL),
                bias=config.flag("mamba_proj_bias", False),
                conv_bias=config.flag("mamba_conv_bias", True),
                output_bias=config.flag("projectors_bias", False),
                norm=config.flag("mamba_rms_norm", False),
            )
            mlp = GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act)
            return HybridLayer(s, mixer, SelfAttention(s, bias=bias, output_bias=bias), mlp)

        self.assemble(s, layer, s.windows, names=_FINAL)


class GraniteHybridLayer(Module):
    """A mixer or attention, experts where there are any, and a shared MLP."""

    def __init__(self, s: Shape, mixer: Module | None, attention: Module | None, experts: int, shared: int) -> None:
        if mixer is not None:
            self.mamba = mixer
        if attention is not None:
            self.self_attn = attention
        self.input_layernorm = RMSNorm(s.hidden)
        self.post_attention_layernorm = RMSNorm(s.hidden)
        if experts:
            router = Router(s.hidden, experts, 1)
            self.block_sparse_moe = SparseMLP(
                router, Experts(s.hidden, s.intermediate, experts, s.act), router_name="router"
            )
        self.shared_mlp = GraniteSharedMLP(s.hidden, shared, s.act)


class GraniteHybrid(CountedDecoder):
    """Granite 4."""

    family = "granitemoehybrid"

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        experts = config.integer("num_local_experts", default=8, low=0, high=MAX_EXPERTS)
        shared = config.integer("shared_intermediate_size", default=1024)
        bias = config.flag("attention_bias", False)
        default = ["linear_attention"] * s.layers
        kinds = layer_kinds(config, ("layer_types", "layers_block_type"), default, _KINDS)

        def layer(kind: str) -> Module:
            if kind == "linear_attention":
                return GraniteHybridLayer(s, headed_mixer(config, s.hidden), None, experts, shared)
            return GraniteHybridLayer(s, None, SelfAttention(s, bias=bias, output_bias=bias), experts, shared)

        self.assemble(s, layer, kinds)

"""Zamba and Zamba 2: state-space layers, and one or two transformer blocks that many of them share; counted, not walked.

The shared blocks stand outside of the stack here, since their weights exist once. PEFT gives every use of them an adapter
of its own, which is not modelled.
Source: transformers 5.23, models/{zamba,zamba2}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, Config
from loralens.core.architecture.counting import CountedDecoder
from loralens.core.architecture.decoder import PartNames
from loralens.core.architecture.families.state_space import (
    MAX_GROUPS,
    MAX_KERNEL,
    DepthwiseConvolution,
    HeadedMixer,
    layer_kinds,
)
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.tape.parameter import Parameter

_SHARED = "adapters on blocks that layers share (Zamba) are not modelled; the parameters are counted"


def _tied(s: Shape) -> None:
    """transformers ties the shared blocks together with the embeddings or not at all."""
    if not s.tied:
        raise UnsupportedArchitecture(
            "Zamba with tie_word_embeddings false, whose blocks are then not shared, is not modelled",
            field="config.tie_word_embeddings",
        )


_KINDS = ("linear_attention", "hybrid")


class ZambaMixer(Module):
    """Mamba with its inner width cut into heads. Shapes: x_proj_weight (heads, rank + 2 * state, inner / heads)."""

    def __init__(self, config: Config, hidden: int) -> None:
        inner = config.integer("mamba_expand", default=2, high=1_024) * hidden
        heads = config.integer("n_mamba_heads", default=2, high=MAX_GROUPS)
        config.divides("n_mamba_heads", inner, heads)
        state = config.integer("mamba_d_state", default=16)
        given = config.entries.get("mamba_dt_rank", "auto")
        rank = -(-hidden // 16) if given == "auto" else config.integer("mamba_dt_rank")
        width, bias = inner // heads, config.flag("mamba_proj_bias", False)
        self.conv1d = DepthwiseConvolution(
            inner, config.integer("mamba_d_conv", default=4, high=MAX_KERNEL), config.flag("mamba_conv_bias", True)
        )
        self.in_proj = Linear(hidden, 2 * inner, bias, name="state space in")
        self.x_proj_weight = Parameter((heads, rank + 2 * state, width))
        self.dt_proj_weight = Parameter((heads, width, rank))
        self.dt_proj_bias = Parameter((heads, width))
        self.A_log = Parameter((heads, width, state))
        self.D = Parameter((heads, width))
        self.out_proj = Linear(inner, hidden, bias, name="state space out")


class WideAttention(Module):
    """Attention on the hidden state next to the embeddings: twice as wide as the residual stream."""

    def __init__(self, s: Shape, wide: int, width: int) -> None:
        self.q_proj = Linear(wide, s.heads * width, name="attention query")
        self.k_proj = Linear(wide, s.kv_heads * width, name="attention key")
        self.v_proj = Linear(wide, s.kv_heads * width, name="attention value")
        self.o_proj = Linear(s.heads * width, s.hidden, name="attention output projection")


class SharedBlock(Module):
    """The transformer block that hybrid layers share."""

    def __init__(self, s: Shape, wide: int, attention: Module, mlp: Module) -> None:
        self.self_attn = attention
        self.feed_forward = mlp
        self.input_layernorm = RMSNorm(wide)
        self.pre_ff_layernorm = RMSNorm(s.hidden)


class StateSpaceLayer(Module):
    """A mixer behind a norm."""

    def __init__(self, hidden: int, mixer: Module) -> None:
        self.mamba = mixer
        self.input_layernorm = RMSNorm(hidden)


class ZambaLayer(Module):
    """A state-space layer, and in hybrid layers a projection from the shared block."""

    def __init__(self, s: Shape, mixer: Module, *, hybrid: bool) -> None:
        if hybrid:
            self.linear = Linear(s.hidden, s.hidden, name="from the shared block")
            self.mamba_decoder = StateSpaceLayer(s.hidden, mixer)
        else:
            self.mamba = mixer
            self.input_layernorm = RMSNorm(s.hidden)


class Zamba(CountedDecoder):
    """The causal language model."""

    family = "zamba"
    no_adapters = _SHARED

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, act="gelu", kv_heads=16, head_dim=1)
        _tied(s)
        wide = config.integer("attention_hidden_size", default=2 * s.hidden)
        width = config.integer("attention_head_dim", default=max(1, 2 * s.hidden // s.heads))
        every = config.integer("attn_layer_period", default=6, high=MAX_LAYERS)
        offset = config.integer("attn_layer_offset", default=4, low=0, high=MAX_LAYERS)
        default = ["linear_attention", "linear_attention", "hybrid"] + [
            "hybrid" if index % every == offset else "linear_attention" for index in range(s.layers - 3)
        ]
        kinds = layer_kinds(config, ("layers_block_type", "layer_types"), default[: s.layers], _KINDS)
        inner = self.assemble(
            s,
            lambda kind: ZambaLayer(s, ZambaMixer(config, s.hidden), hybrid=kind == "hybrid"),
            kinds,
            names=PartNames(norm="final_layernorm"),
        )
        if "hybrid" in kinds:
            mlp = GatedMLP(s.hidden, s.intermediate, act=s.act)
            inner.shared_transf = SharedBlock(s, wide, WideAttention(s, wide, width), mlp)


class LowRankPair(Module):
    """Two linear layers in a row, which tell the uses of a shared block apart."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        setattr(self, "0", Linear(inputs, rank, name="adapter, narrow"))
        setattr(self, "1", Linear(rank, outputs, name="adapter"))


class Zamba2MLP(Module):
    """A gated MLP with one pair for each layer that uses it."""

    def __init__(self, s: Shape, rank: int, uses: list[int], bias: bool) -> None:
        self.gate_up_proj = Linear(s.hidden, 2 * s.intermediate, bias, name="mlp gate and up")
        self.down_proj = Linear(s.intermediate, s.hidden, bias, name="mlp down")
        self.gate_up_proj_adapter_list = pairs = Module()
        for use in uses:
            setattr(pairs, str(use), LowRankPair(s.hidden, rank, 2 * s.intermediate))


class Zamba2(CountedDecoder):
    """Mamba 2, shared blocks taken in turn, and low-rank pairs for each use of them."""

    family = "zamba2"
    no_adapters = _SHARED

    def __init__(self, config: Config) -> None:
        own = config
        if not config.has("intermediate_size"):
            own = config.over({"intermediate_size": 4 * config.integer("hidden_size")})
        s = Shape.read(own, tied=True, act="gelu", head_dim=1)
        _tied(s)
        wide, width = 2 * s.hidden, max(1, 2 * s.hidden // s.heads)
        usual = ["linear_attention"] * 5 + ["hybrid"]
        default = ["linear_attention", *usual * 7, *usual[1:], *usual[2:], *usual[:2]]
        default = (default * (1 + s.layers // len(default)))[: s.layers] if s.layers > len(default) else default
        kinds = layer_kinds(config, ("layers_block_type", "layer_types"), default[: s.layers], _KINDS)
        bias = config.flag("add_bias_linear", False)
        inner = config.integer("mamba_expand", default=2, high=1_024) * s.hidden
        heads = config.integer("n_mamba_heads", default=8, high=MAX_GROUPS)
        config.divides("n_mamba_heads", inner, heads)

        def layer(kind: str) -> ZambaLayer:
            mixer = HeadedMixer(
                s.hidden,
                inner,
                heads,
                config.integer("mamba_d_state", default=64),
                config.integer("mamba_ngroups", default=1, high=MAX_GROUPS),
                config.integer("mamba_d_conv", default=4, high=MAX_KERNEL),
                bias=bias,
            )
            return ZambaLayer(s, mixer, hybrid=kind == "hybrid")

        root = self.assemble(s, layer, kinds, names=PartNames(norm="final_layernorm"))
        rank = config.integer("adapter_rank", default=128)
        hybrids = kinds.count("hybrid")
        blocks = config.integer("num_mem_blocks", default=1, high=MAX_LAYERS)
        for block in range(min(blocks, hybrids)):
            uses = list(range(block, hybrids, blocks))
            attention = WideAttention(s, wide, width)
            if config.flag("use_shared_attention_adapter", False):
                for name in "qkv":
                    setattr(attention, f"linear_{name}_adapter_list", pairs := Module())
                    for use in uses:
                        setattr(pairs, str(use), LowRankPair(wide, rank, wide))
            setattr(
                root, f"shared_transformer_{block}", SharedBlock(s, wide, attention, Zamba2MLP(s, rank, uses, bias))
            )

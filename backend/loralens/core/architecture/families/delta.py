"""Gated delta networks between attention layers: Qwen3-Next, Qwen3.5, OLMo-Hybrid; counted, not walked.

Source: transformers 5.23, models/{qwen3_next,qwen3_5,qwen3_5_moe,olmo_hybrid}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, GemmaRMSNorm, LateCastRMSNorm, RMSNorm
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.counting import CountedDecoder
from loralens.core.architecture.decoder import DecoderLayer, SelfAttention
from loralens.core.architecture.families.olmo2 import Olmo2Layer
from loralens.core.architecture.families.state_space import MAX_GROUPS, MAX_KERNEL, Convolution, layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import EXPERT_TARGETS, Experts, Router
from loralens.core.architecture.moe_shared import GatedSharedMLP
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.tape.parameter import Parameter

KINDS = ("linear_attention", "full_attention")


class Widths:
    """Sizes of a delta layer: heads and their widths for keys and for values."""

    def __init__(self, key_heads: int, value_heads: int, key: int, value: int, kernel: int) -> None:
        self.value_heads, self.value_dim, self.kernel = value_heads, value, kernel
        self.keys, self.values = key_heads * key, value_heads * value

    @staticmethod
    def read(config: Config, key_heads: int, value_heads: int, key: int, value: int | None) -> Widths:
        """From a config; the numbers are the family's defaults, values twice as wide as keys where it has none."""
        key_heads = config.integer("linear_num_key_heads", default=key_heads, high=MAX_HEADS)
        key = config.integer("linear_key_head_dim", default=key, high=MAX_GROUPS)
        return Widths(
            key_heads,
            config.integer("linear_num_value_heads", default=value_heads, high=MAX_HEADS),
            key,
            config.integer("linear_value_head_dim", default=value or 2 * key, high=2 * MAX_GROUPS),
            config.integer("linear_conv_kernel_dim", default=4, high=MAX_KERNEL),
        )


class DeltaNet(Module):
    """Qwen3.5: query, key and value in one matrix, gates in three. `joined`: Qwen3-Next joins them further."""

    def __init__(self, hidden: int, w: Widths, *, joined: bool = False) -> None:
        self.conv1d = Convolution(2 * w.keys + w.values, w.kernel, False)
        self.dt_bias = Parameter((w.value_heads,))
        self.A_log = Parameter((w.value_heads,))
        self.norm = RMSNorm(w.value_dim)
        self.out_proj = Linear(w.values, hidden, name="linear attention out")
        widths = {"qkv": 2 * w.keys + w.values, "z": w.values, "b": w.value_heads, "a": w.value_heads}
        if joined:
            widths = {"qkvz": 2 * w.keys + 2 * w.values, "ba": 2 * w.value_heads}
        for name, width in widths.items():
            setattr(self, f"in_proj_{name}", Linear(hidden, width, name=f"linear attention {name}"))


class GatedAttention(SelfAttention):
    """The query's projection holds a gate as wide as the query; norms on query and key."""

    def __init__(self, s: Shape, bias: bool) -> None:
        super().__init__(s, bias=bias, output_bias=bias)
        self.q_proj = Linear(s.hidden, 2 * s.heads * s.head_dim, bias, name="attention query and gate")
        self.q_norm = GemmaRMSNorm(s.head_dim)
        self.k_norm = GemmaRMSNorm(s.head_dim)


class DeltaLayer(DecoderLayer):
    """`linear_attn` or `self_attn`, then the MLP."""

    def __init__(self, s: Shape, linear: Module | None, attention: Module | None, mlp: Module) -> None:
        super().__init__(s, Module(), mlp)
        del self.self_attn
        if linear is not None:
            self.linear_attn = linear
        if attention is not None:
            self.self_attn = attention


class Qwen35(CountedDecoder):
    """Qwen3.5, dense."""

    family = "qwen3_5_text"
    kv_heads, key_heads, value_heads, joined = 4, 16, 32, False

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=self.kv_heads, head_dim=256, rotary=0.25, intermediate=self.unused(config))
        every = config.integer("full_attention_interval", default=4, high=MAX_LAYERS)
        default = ["linear_attention" if (index + 1) % every else "full_attention" for index in range(s.layers)]
        kinds = layer_kinds(config, ("layer_types",), default, KINDS)
        w = Widths.read(config, self.key_heads, self.value_heads, 128, 128)
        bias = config.flag("attention_bias", False)
        sparse = self.sparse(config, s.layers)

        def layer(kind: tuple[str, bool]) -> DeltaLayer:
            mlp = self.experts(config, s) if kind[1] else GatedMLP(s.hidden, s.intermediate, act=s.act)
            if kind[0] == "linear_attention":
                return DeltaLayer(s, DeltaNet(s.hidden, w, joined=self.joined), None, mlp)
            return DeltaLayer(s, None, GatedAttention(s, bias), mlp)

        self.assemble(s, layer, list(zip(kinds, sparse, strict=True)))

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
        return GatedSharedMLP(Router(s.hidden, number, chosen), experts, beside, s.hidden)

    default_experts = 256


class Qwen35Moe(Qwen35):
    """Qwen3.5 with experts in every layer."""

    family = "qwen3_5_moe_text"
    kv_heads = 2

    def unused(self, config: Config) -> int | None:
        """No layer has a dense MLP."""
        return 1

    def sparse(self, config: Config, layers: int) -> list[bool]:
        """All of them."""
        return [True] * layers


class Qwen3Next(Qwen35):
    """Qwen3-Next."""

    family = "qwen3_next"
    kv_heads, joined, default_experts = 2, True, 512
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


class OlmoDelta(Module):
    """OLMo-Hybrid's delta layer: everything has a projection of its own."""

    def __init__(self, hidden: int, w: Widths) -> None:
        for name, width in (("q", w.keys), ("k", w.keys), ("v", w.values), ("g", w.values)):
            setattr(self, f"{name}_proj", Linear(hidden, width, name=f"linear attention {name}"))
        for name in ("a", "b"):
            setattr(self, f"{name}_proj", Linear(hidden, w.value_heads, name=f"linear attention {name}"))
        self.o_proj = Linear(w.values, hidden, name="linear attention out")
        self.conv1d = Convolution(2 * w.keys + w.values, w.kernel, False)
        self.A_log = Parameter((w.value_heads,))
        self.dt_bias = Parameter((w.value_heads,))
        self.o_norm = RMSNorm(w.value_dim)


class OlmoHybrid(CountedDecoder):
    """Three delta layers, then OLMo-3's attention."""

    family = "olmo_hybrid"

    def __init__(self, config: Config) -> None:
        s = Shape.read(config)
        default = ["full_attention" if index % 4 == 3 else "linear_attention" for index in range(s.layers)]
        if "full_attention" not in default:
            default[-1] = "full_attention"
        kinds = layer_kinds(config, ("layer_types",), default, KINDS)
        heads = config.integer("linear_num_key_heads", default=s.heads, high=MAX_HEADS)
        w = Widths.read(config, s.heads, s.heads, max(1, int(0.75 * s.hidden / heads)), None)
        bias = config.flag("attention_bias", False)

        def layer(kind: str) -> Module:
            if kind == "linear_attention":
                mlp = GatedMLP(s.hidden, s.intermediate, act=s.act)
                return DeltaLayer(s, OlmoDelta(s.hidden, w), None, mlp)
            return Olmo2Layer(s, bias)

        self.assemble(s, layer, kinds, norm=LateCastRMSNorm)

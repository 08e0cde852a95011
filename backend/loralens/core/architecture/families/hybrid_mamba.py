"""Decoders that alternate state-space and attention layers: Jamba and Bamba.

Source: transformers 5.23, models/{jamba,bamba}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames, SelfAttention
from loralens.core.architecture.families.mixed_layer import MixedLayer
from loralens.core.architecture.families.nemotron import NemotronAttention
from loralens.core.architecture.families.state_space import NormedMixer, headed_mixer, mixers_as, unread_adapters
from loralens.core.architecture.module import Module
from loralens.core.architecture.moe import ROUTING, Experts, Router, SparseMLP
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.tape import Tape

_FINAL = PartNames(norm="final_layernorm")


class HybridLayer(MixedLayer):
    """Mamba or attention, then an MLP."""

    mlp_name, mlp_norm_name = "feed_forward", "pre_ff_layernorm"


class JambaRouter(Router):
    """The chosen scores are no shares, and are cast to the input's dtype."""

    def weights(self, t: Tape, values: Tensor) -> Tensor:
        """As they are."""
        return values


class JambaAttention(SelfAttention):
    """Without positions."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Query and key as they are."""
        return q, k


class Jamba(CausalDecoder):
    """Mamba with norms on its parameters, attention every eighth layer, experts every second."""

    mixes = True
    caches = False
    turn = 1

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8).with_rotated(0)
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
                router = JambaRouter(s.hidden, experts, chosen, casts_back=True)
                mlp = SparseMLP(router, Experts(s.hidden, s.intermediate, experts, s.act), router_name="router")
            if kind[0]:
                return HybridLayer(s, "self_attn", JambaAttention(s), mlp)
            mixer = NormedMixer(s.hidden, inner, state, rank, kernel, bias, conv_bias)
            return HybridLayer(s, "mamba", mixer, mlp)

        kinds = [(index % attention[0] == attention[1], index % sparse[0] == sparse[1]) for index in range(s.layers)]
        self._sparse = experts > 1 and any(kind[1] for kind in kinds)
        self.assemble(s, layer, kinds, names=_FINAL)

    def unreached(self) -> list[Parameter]:
        """Adapters of `dt_proj`, whose weight alone is read."""
        return unread_adapters(self)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run, and how the experts do."""
        return [*super().assumptions(recipe), mixers_as(recipe), *([ROUTING] if self._sparse else [])]


def _pattern(config: Config, name: str, period: int, offset: int) -> tuple[int, int]:
    every = config.integer(f"{name}_period", default=period, high=MAX_LAYERS)
    return every, config.integer(f"{name}_offset", default=offset, low=0, high=every - 1)


class Bamba(CausalDecoder):
    """Mamba 2, and attention in the layers that the config lists."""

    mixes = True
    caches = False

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, kv_heads=8, rotary=0.5)
        listed = set(config.integers("attn_layer_indices", MAX_LAYERS) or ())
        bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)

        def layer(attends: bool) -> Module:
            mlp = GatedMLP(s.hidden, s.intermediate, mlp_bias, s.act)
            if attends:
                return HybridLayer(s, "self_attn", NemotronAttention(s, bias=bias, output_bias=bias), mlp)
            return HybridLayer(s, "mamba", headed_mixer(config, s.hidden), mlp)

        self.assemble(s, layer, [index in listed for index in range(s.layers)], names=_FINAL)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run."""
        return [*super().assumptions(recipe), mixers_as(recipe)]

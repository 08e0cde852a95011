"""Nemotron-H, whose layers are a mixer, attention, an MLP or experts each.

Source: transformers 5.23, models/nemotron_h/modeling_nemotron_h.py.
"""

from __future__ import annotations

from typing import ClassVar

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import PlainMLP, RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames, SelfAttention
from loralens.core.architecture.families.state_space import (
    MAX_GROUPS,
    MAX_KERNEL,
    REFUSED,
    HeadedMixer,
    layer_kinds,
    mixers_as,
)
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import ROUTING, Experts
from loralens.core.architecture.moe_sigmoid import GroupRouter
from loralens.core.architecture.shape import Shape
from loralens.core.errors import InvalidInput
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.tape import Tape


class NemotronNorm(RMSNorm):
    """Multiplies in float32 with a copy of the weight, and casts last."""

    def _weighted(self, t: Tape, x: Tensor, dtype: str) -> Tensor:
        weight = ops.cast(t, t.parameter(self.weight), "float32", "norm: weight in float32")
        return ops.cast(t, ops.mul(t, x, weight, "norm: output in float32"), dtype, "norm: output")


class NemotronLayer(Module):
    """A norm and one mixer of whatever kind."""

    def __init__(self, hidden: int, mixer: Module, *, called: bool) -> None:
        self.norm = NemotronNorm(hidden)
        self.mixer = mixer
        self._called = called  # with the layer's arguments, as a mixer over positions is

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.norm(t, ops.cast(t, hidden, self.norm.weight.dtype, "norm: input in the weight's dtype"))
        hidden = self.mixer(t, hidden, call) if self._called else self.mixer(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class UnturnedAttention(SelfAttention):
    """No positions."""

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """As they are."""
        return q, k


class NemotronExperts(Experts):
    """Up and down of all experts, without a gate."""

    def __init__(self, width: int, intermediate: int, experts: int, act: str) -> None:
        super().__init__(width, intermediate, experts, act)
        del self.gate_up_proj, self.down_proj
        self.up_proj = Parameter((experts, intermediate, width))
        self.down_proj = Parameter((experts, width, intermediate))

    def first(self, t: Tape, selected: Tensor, absent: Tensor | None) -> Tensor:
        """Up and activated."""
        out, _ = self._grouped(t, selected, "up_proj", None, self._intermediate, "experts: up", absent)
        return activation(t, out, self._act, "experts: activated")


class NemotronMoe(Module):
    """Router, experts and a shared MLP; with a latent size the experts work in a narrower space."""

    def __init__(self, config: Config, s: Shape, bias: bool) -> None:
        experts = config.integer("n_routed_experts", "num_local_experts", default=8, high=MAX_EXPERTS)
        width = config.integer("moe_intermediate_size", default=7688)
        latent = config.integer("moe_latent_size") if config.has("moe_latent_size") else None
        self.experts = NemotronExperts(latent or s.hidden, width, experts, s.act)
        chosen = config.integer("num_experts_per_tok", default=min(2, experts), high=experts)
        self.chosen = chosen
        self.gate = GroupRouter(s.hidden, experts, chosen, float32=True)
        self.gate.normed = config.flag("norm_topk_prob", True)
        shared = config.integer("moe_shared_expert_intermediate_size", default=7688)
        self.shared_experts = PlainMLP(s.hidden, shared, ("up_proj", "down_proj"), s.act, bias)
        if latent is not None:
            self.fc1_latent_proj = Linear(s.hidden, latent, bias, name="experts: into the latent space")
            self.fc2_latent_proj = Linear(latent, s.hidden, bias, name="experts: out of the latent space")
        self._narrow = latent is not None

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        weights, numbers = self.gate.forward(t, x)
        hidden = self.fc1_latent_proj(t, x) if self._narrow else x
        hidden = self.experts(t, hidden, weights, numbers, self.gate.chosen)
        hidden = self.fc2_latent_proj(t, hidden) if self._narrow else hidden
        return ops.add(t, hidden, self.shared_experts(t, x), "experts plus shared expert")


class NemotronH(CausalDecoder):
    """The causal language model. The list of layers says how many there are."""

    mixes = True
    caches = False
    default_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    refused_targets = REFUSED
    letters: ClassVar[dict[str, str]] = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}

    def __init__(self, config: Config) -> None:
        kinds = self.kinds(config)
        act = config.text("mlp_hidden_act", "relu2")
        own = config.over({"num_hidden_layers": len(kinds), "hidden_act": None}, {"intermediate_size": 21504})
        s = Shape.read(own, kv_heads=8, head_dim=128, act=act).with_rotated(0)
        bias = config.flag("mlp_bias", False)
        heads, width = (
            config.integer("mamba_num_heads", default=128, high=MAX_GROUPS),
            config.integer("mamba_head_dim", default=64),
        )

        def layer(kind: str) -> NemotronLayer:
            match kind:
                case "linear_attention":
                    return NemotronLayer(
                        s.hidden, self.state_space(config, s.hidden, heads, heads * width), called=True
                    )
                case "full_attention":
                    return NemotronLayer(s.hidden, UnturnedAttention(s), called=True)
                case "moe":
                    return NemotronLayer(s.hidden, NemotronMoe(config, s, bias), called=False)
            mlp = PlainMLP(s.hidden, s.intermediate, ("up_proj", "down_proj"), s.act, bias)
            return NemotronLayer(s.hidden, mlp, called=False)

        self._sparse = "moe" in kinds
        self.assemble(s, layer, kinds, norm=NemotronNorm, names=PartNames(embedding="embeddings", norm="norm_f"))

    @staticmethod
    def state_space(config: Config, hidden: int, heads: int, inner: int) -> HeadedMixer:
        """The mixer of a state-space layer."""
        groups = config.integer("mamba_n_groups", "n_groups", default=8, high=MAX_GROUPS)
        config.divides("n_groups", inner, groups)
        return HeadedMixer(
            hidden,
            inner,
            heads,
            config.integer("ssm_state_size", default=128),
            groups,
            config.integer("mamba_d_conv", "conv_kernel", default=4, high=MAX_KERNEL),
            bias=config.flag("use_bias", False),
            conv_bias=config.flag("mamba_conv_bias", config.flag("use_conv_bias", True)),
            chunk=config.integer("mamba_chunk_size", "chunk_size", default=128, high=MAX_GROUPS),
            norm_groups=groups,
        )

    def kinds(self, config: Config) -> list[str]:
        """A list of kinds, or a pattern of letters."""
        allowed = tuple(self.letters.values())
        names = ("layers_block_type", "layer_types")
        pattern = config.text("hybrid_override_pattern", "") if not any(config.has(name) for name in names) else ""
        for letter in pattern:
            if letter not in self.letters:
                raise InvalidInput(
                    f"config.hybrid_override_pattern holds {letter!r}; allowed are {' '.join(self.letters)}",
                    field="config.hybrid_override_pattern",
                )
        if pattern:
            return [self.letters[letter] for letter in pattern]
        default = ["linear_attention", "moe", "full_attention", "mlp"]
        return layer_kinds(config, names, default, allowed, own_length=True)

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """In float32, and in 16 bits no longer."""
        return ops.cast(t, super().logits(t, hidden), "float32", "logits in float32")

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernels run, and how the experts do."""
        return [*super().assumptions(recipe), mixers_as(recipe), *([ROUTING] if self._sparse else [])]

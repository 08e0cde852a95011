"""Mamba 2 and Nemotron-H, whose layers are a mixer, attention, an MLP or experts each; counted, not walked.

Source: transformers 5.23, models/{mamba2,nemotron_h}/modeling_*.py.
"""

from __future__ import annotations

from typing import ClassVar

from loralens.core.architecture.blocks import PlainMLP, RMSNorm
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.counting import Counted, CountedDecoder
from loralens.core.architecture.decoder import Names, SelfAttention
from loralens.core.architecture.families.state_space import MAX_GROUPS, MAX_KERNEL, REFUSED, HeadedMixer, layer_kinds
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.moe import Router
from loralens.core.architecture.shape import Shape
from loralens.core.errors import InvalidInput
from loralens.core.tape.parameter import Parameter


class OneMixer(Module):
    """A norm and one mixer of whatever kind."""

    def __init__(self, hidden: int, mixer: Module) -> None:
        self.norm = RMSNorm(hidden)
        self.mixer = mixer


class Mamba2(Counted):
    """The causal language model."""

    family = "mamba2"
    default_targets = ("in_proj",)
    refused_targets = REFUSED

    def __init__(self, config: Config) -> None:
        hidden, vocabulary = config.integer("hidden_size"), config.integer("vocab_size", high=MAX_VOCABULARY)
        layers = config.integer("num_hidden_layers", "n_layer", high=MAX_LAYERS)
        inner = config.integer("expand", default=2, high=1_024) * hidden
        heads, width = config.integer("num_heads", default=128, high=MAX_GROUPS), config.integer("head_dim", default=64)
        if heads * width != inner:
            raise InvalidInput(
                f"config.num_heads {heads} times head_dim {width} must be expand * hidden_size, {inner}",
                field="config.num_heads",
                hint="compare with the model's config.json on the Hub",
            )

        def layer(_: object) -> OneMixer:
            mixer = HeadedMixer(
                hidden,
                inner,
                heads,
                config.integer("state_size", default=128),
                config.integer("n_groups", default=8, high=MAX_GROUPS),
                config.integer("conv_kernel", default=4, high=MAX_KERNEL),
                bias=config.flag("use_bias", False),
                conv_bias=config.flag("use_conv_bias", True),
            )
            return OneMixer(hidden, mixer)

        self.backbone = Module()
        self.backbone.embeddings = Embedding(vocabulary, hidden)
        self.backbone.layers = Stack(layer, [None] * layers)
        self.backbone.norm_f = RMSNorm(hidden)
        self.lm_head = self.head = Linear(hidden, vocabulary, name="head")
        self.vocabulary, self.tied = vocabulary, config.flag("tie_word_embeddings", False)
        if self.tied:
            self.lm_head.weight = self.backbone.embeddings.weight


class NemotronExperts(Module):
    """Up and down of all experts, without a gate."""

    def __init__(self, width: int, intermediate: int, experts: int) -> None:
        self.up_proj = Parameter((experts, intermediate, width))
        self.down_proj = Parameter((experts, width, intermediate))


class NemotronMoe(Module):
    """Router, experts and a shared MLP; with a latent size the experts work in a narrower space."""

    def __init__(self, config: Config, s: Shape, bias: bool) -> None:
        experts = config.integer("n_routed_experts", "num_local_experts", default=8, high=MAX_EXPERTS)
        width = config.integer("moe_intermediate_size", default=7688)
        latent = config.integer("moe_latent_size") if config.has("moe_latent_size") else None
        self.experts = NemotronExperts(latent or s.hidden, width, experts)
        self.gate = Router(s.hidden, experts, 1)
        shared = config.integer("moe_shared_expert_intermediate_size", default=7688)
        self.shared_experts = PlainMLP(s.hidden, shared, ("up_proj", "down_proj"), s.act, bias)
        if latent is not None:
            self.fc1_latent_proj = Linear(s.hidden, latent, bias, name="experts: into the latent space")
            self.fc2_latent_proj = Linear(latent, s.hidden, bias, name="experts: out of the latent space")


class NemotronH(CountedDecoder):
    """The causal language model. The list of layers says how many there are."""

    family = "nemotron_h"
    default_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    refused_targets = REFUSED
    letters: ClassVar[dict[str, str]] = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}

    def __init__(self, config: Config) -> None:
        kinds = self.kinds(config)
        act = config.text("mlp_hidden_act", "relu2")
        own = config.over({"num_hidden_layers": len(kinds), "hidden_act": None}, {"intermediate_size": 21504})
        s = Shape.read(own, kv_heads=8, head_dim=128, act=act)
        bias = config.flag("mlp_bias", False)
        heads, width = (
            config.integer("mamba_num_heads", default=128, high=MAX_GROUPS),
            config.integer("mamba_head_dim", default=64),
        )

        def layer(kind: str) -> OneMixer:
            match kind:
                case "linear_attention":
                    return OneMixer(s.hidden, self.state_space(config, s.hidden, heads, heads * width))
                case "full_attention":
                    return OneMixer(s.hidden, SelfAttention(s))
                case "moe":
                    return OneMixer(s.hidden, NemotronMoe(config, s, bias))
            return OneMixer(s.hidden, PlainMLP(s.hidden, s.intermediate, ("up_proj", "down_proj"), s.act, bias))

        self.assemble(s, layer, kinds, names=Names(embedding="embeddings", norm="norm_f"))

    @staticmethod
    def state_space(config: Config, hidden: int, heads: int, inner: int) -> HeadedMixer:
        """The mixer of a state-space layer."""
        return HeadedMixer(
            hidden,
            inner,
            heads,
            config.integer("ssm_state_size", default=128),
            config.integer("mamba_n_groups", "n_groups", default=8, high=MAX_GROUPS),
            config.integer("mamba_d_conv", "conv_kernel", default=4, high=MAX_KERNEL),
            bias=config.flag("use_bias", False),
            conv_bias=config.flag("mamba_conv_bias", config.flag("use_conv_bias", True)),
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

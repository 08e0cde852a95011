"""Mamba 2; counted, not walked.

Source: transformers 5.23, models/mamba2/modeling_mamba2.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.counting import CountedModel
from loralens.core.architecture.families.state_space import MAX_GROUPS, MAX_KERNEL, REFUSED, HeadedMixer
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.errors import InvalidInput


class OneMixer(Module):
    """A norm and one mixer of whatever kind."""

    def __init__(self, hidden: int, mixer: Module) -> None:
        self.norm = RMSNorm(hidden)
        self.mixer = mixer


class Mamba2(CountedModel):
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

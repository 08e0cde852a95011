"""Mamba and Falcon-Mamba: state-space layers; counted, not walked.

Source: transformers 5.23, models/{mamba,falcon_mamba}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.counting import Counted
from loralens.core.architecture.families.state_space import REFUSED, SelectiveMixer
from loralens.core.architecture.module import Embedding, Linear, Module, Stack


class MambaBlock(Module):
    """Norm and mixer."""

    def __init__(self, hidden: int, mixer: SelectiveMixer) -> None:
        self.norm = RMSNorm(hidden)
        self.mixer = mixer


class Mamba(Counted):
    """The causal language model."""

    family = "mamba"
    default_targets = ("in_proj", "x_proj")
    refused_targets = REFUSED
    tied_by_default = True

    def __init__(self, config: Config) -> None:
        hidden, vocabulary = config.integer("hidden_size", "d_model"), config.integer("vocab_size", high=MAX_VOCABULARY)
        layers = config.integer("num_hidden_layers", "n_layer", high=MAX_LAYERS)
        state, kernel = config.integer("state_size", default=16), config.integer("conv_kernel", default=4, high=65_536)
        inner = config.integer("expand", default=2, high=1_024) * hidden
        given = config.entries.get("time_step_rank")
        rank = -(-hidden // 16) if given in (None, "auto") else config.integer("time_step_rank")
        bias, conv_bias = config.flag("use_bias", False), config.flag("use_conv_bias", True)
        self.backbone = Module()
        self.backbone.embeddings = Embedding(vocabulary, hidden)
        self.backbone.layers = Stack(
            lambda _: MambaBlock(hidden, SelectiveMixer(hidden, inner, state, rank, kernel, bias, conv_bias)),
            [None] * layers,
        )
        self.backbone.norm_f = RMSNorm(hidden)
        self.lm_head = Linear(hidden, vocabulary, name="head")
        self.head, self.vocabulary, self.tied = (
            self.lm_head,
            vocabulary,
            config.flag("tie_word_embeddings", self.tied_by_default),
        )
        if self.tied:
            self.lm_head.weight = self.backbone.embeddings.weight

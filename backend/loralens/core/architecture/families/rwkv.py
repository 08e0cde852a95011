"""RWKV (4): recurrence by receptance, keys and values; counted, not walked.

Source: transformers 5.23, models/rwkv/modeling_rwkv.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import LayerNorm
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.counting import CountedModel
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.tape.parameter import Parameter


class TimeMixing(Module):
    """`attention`. Shapes: time_decay, time_first (width), time_mix_* (1, 1, hidden)."""

    def __init__(self, hidden: int, width: int) -> None:
        self.time_decay = Parameter((width,))
        self.time_first = Parameter((width,))
        for name in ("key", "value", "receptance"):
            setattr(self, f"time_mix_{name}", Parameter((1, 1, hidden)))
            setattr(self, name, Linear(hidden, width, name=f"time mixing: {name}"))
        self.output = Linear(width, hidden, name="time mixing: output")


class ChannelMixing(Module):
    """`feed_forward`."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        self.time_mix_key = Parameter((1, 1, hidden))
        self.time_mix_receptance = Parameter((1, 1, hidden))
        self.key = Linear(hidden, intermediate, name="channel mixing: key")
        self.receptance = Linear(hidden, hidden, name="channel mixing: receptance")
        self.value = Linear(intermediate, hidden, name="channel mixing: value")


class RwkvBlock(Module):
    """The first block has a norm before everything else."""

    def __init__(self, hidden: int, width: int, intermediate: int, *, first: bool) -> None:
        if first:
            self.pre_ln = LayerNorm(hidden)
        self.ln1 = LayerNorm(hidden)
        self.ln2 = LayerNorm(hidden)
        self.attention = TimeMixing(hidden, width)
        self.feed_forward = ChannelMixing(hidden, intermediate)


class Rwkv(CountedModel):
    """The causal language model."""

    family = "rwkv"
    default_targets = ("key", "value", "receptance", "output")

    def __init__(self, config: Config) -> None:
        hidden, vocabulary = config.integer("hidden_size"), config.integer("vocab_size", high=MAX_VOCABULARY)
        layers = config.integer("num_hidden_layers", high=MAX_LAYERS)
        width = config.integer("attention_hidden_size", default=hidden)
        intermediate = config.integer("intermediate_size", default=4 * hidden)
        self.rwkv = Module()
        self.rwkv.embeddings = Embedding(vocabulary, hidden)
        self.rwkv.blocks = Stack(
            lambda first: RwkvBlock(hidden, width, intermediate, first=first), [index == 0 for index in range(layers)]
        )
        self.rwkv.ln_out = LayerNorm(hidden)
        self.head = Linear(hidden, vocabulary, name="head")
        self.vocabulary, self.tied = vocabulary, config.flag("tie_word_embeddings", False)
        if self.tied:
            self.head.weight = self.rwkv.embeddings.weight

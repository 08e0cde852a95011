"""T5 and Flan-T5: encoder and decoder with relative position biases; counted, not walked.

Source: transformers 5.23, models/t5/modeling_t5.py (`T5ForConditionalGeneration`).
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.counting import Counted
from loralens.core.architecture.module import Embedding, Linear, Module, Parameter, Stack


class T5Attention(Module):
    """q, k, v, o without bias; the first layer of a stack holds the position biases."""

    def __init__(self, hidden: int, inner: int, buckets: int | None, heads: int) -> None:
        self.q = Linear(hidden, inner, name="attention query")
        self.k = Linear(hidden, inner, name="attention key")
        self.v = Linear(hidden, inner, name="attention value")
        self.o = Linear(inner, hidden, name="attention output projection")
        self.relative_attention_bias = None if buckets is None else Embedding(buckets, heads)


class Branch(Module):
    """One residual branch with its norm."""

    def __init__(self, name: str, branch: Module, hidden: int) -> None:
        setattr(self, name, branch)
        self.layer_norm = RMSNorm(hidden)


class FeedForward(Module):
    """`wi`, or gate and up, and `wo`."""

    def __init__(self, hidden: int, intermediate: int, gated: bool) -> None:
        for name in ("wi_0", "wi_1") if gated else ("wi",):
            setattr(self, name, Linear(hidden, intermediate, name="mlp up"))
        self.wo = Linear(intermediate, hidden, name="mlp down")


class T5Block(Module):
    """Self-attention, cross-attention in the decoder, feed-forward."""

    def __init__(self, branches: list[Module]) -> None:
        self.layer = Module()
        for index, branch in enumerate(branches):
            setattr(self.layer, str(index), branch)


class T5Stack(Module):
    """Encoder or decoder."""

    def __init__(self, tokens: Parameter, hidden: int, block: Stack) -> None:
        self.embed_tokens = Embedding(tokens.shape[0], tokens.shape[1])  # type: ignore[arg-type]
        self.embed_tokens.weight = tokens
        self.block = block
        self.final_layer_norm = RMSNorm(hidden)


class T5(Counted):
    """Encoder, decoder and head."""

    family = "t5"
    default_targets = ("q", "v")

    def __init__(self, config: Config) -> None:
        hidden = config.integer("d_model", "hidden_size")
        width, heads = (
            config.integer("d_kv", default=64, high=65_536),
            config.integer("num_heads", "num_attention_heads", high=65_536),
        )
        intermediate, layers = (
            config.integer("d_ff"),
            config.integer("num_layers", "num_hidden_layers", high=MAX_LAYERS),
        )
        decoder_layers = config.integer("num_decoder_layers", default=layers, high=MAX_LAYERS)
        buckets = config.integer("relative_attention_num_buckets", default=32)
        vocabulary = config.integer("vocab_size", high=MAX_VOCABULARY)
        gated = config.text("feed_forward_proj", "relu").startswith("gated")

        def block(kind: tuple[bool, bool]) -> T5Block:
            first, decoder = kind
            branches: list[Module] = [
                Branch("SelfAttention", T5Attention(hidden, heads * width, buckets if first else None, heads), hidden)
            ]
            if decoder:
                branches.append(Branch("EncDecAttention", T5Attention(hidden, heads * width, None, heads), hidden))
            branches.append(Branch("DenseReluDense", FeedForward(hidden, intermediate, gated), hidden))
            return T5Block(branches)

        self.shared = Embedding(vocabulary, hidden)
        tokens = self.shared.weight
        self.encoder = T5Stack(tokens, hidden, Stack(block, [(index == 0, False) for index in range(layers)]))
        self.decoder = T5Stack(tokens, hidden, Stack(block, [(index == 0, True) for index in range(decoder_layers)]))
        self.lm_head = Linear(hidden, vocabulary, name="head")
        self.head, self.vocabulary, self.tied = (
            self.lm_head,
            vocabulary,
            True,
        )  # transformers 5 ties it whatever the config says
        if self.tied:
            self.lm_head.weight = tokens

"""Megatron Core's GPT, as one tensor-parallel rank runs it; `megatron_layers` has its layers.

Sources: NVIDIA/Megatron-LM d98e8a64 megatron/core: models/gpt/gpt_model.py, tensor_parallel/cross_entropy.py (one float32 copy of
the logits, in which everything happens), tensor_parallel/layers.py (the head's gathered input stands in a buffer of its own).
Leaves out: TransformerEngine's and cuBLAS's workspaces, FP8, context parallel, mixtures of experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from loralens.core.architecture.blocks import LayerNorm, RMSNorm, fused_rms_norm
from loralens.core.architecture.causal import lookup
from loralens.core.architecture.decoder import CausalDecoder
from loralens.core.architecture.frameworks.megatron_layers import (
    CoreLayer,
    CoreStyle,
    RankShare,
    gathered,
    reduced,
    weight_gradients,
)
from loralens.core.architecture.module import Embedding
from loralens.core.architecture.shape import Shape
from loralens.core.errors import InvalidInput
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.size import ONE, SEQUENCE, TOKENS
from loralens.core.tape.tape import Tape

if TYPE_CHECKING:
    from loralens.core.architecture.call import Call
    from loralens.core.architecture.config import Config
    from loralens.core.question.parallelism import Parallelism

STYLES: Final = {
    "llama": CoreStyle(rms=True, act="swiglu", bias=False, rotary=1.0),
    "mistral": CoreStyle(rms=True, act="swiglu", bias=False, rotary=1.0),
    "qwen2": CoreStyle(rms=True, act="swiglu", bias=False, rotary=1.0, qkv_bias=True),
    "nemotron": CoreStyle(rms=False, act="squared_relu", bias=False, rotary=0.5),
    "gpt2": CoreStyle(rms=False, act="gelu", bias=True, rotary=0.0),
}


def _style(config: Config, usual: CoreStyle) -> CoreStyle:
    """The model type's style, but for what the config says in Megatron's own words."""
    learned = config.text("position_embedding_type", "rope" if usual.rotary else "learned_absolute") != "rope"
    return replace(
        usual,
        act="swiglu" if config.flag("swiglu", usual.act == "swiglu") else usual.act,
        bias=config.flag("add_bias_linear", usual.bias),
        rms=config.text("normalization", "RMSNorm" if usual.rms else "LayerNorm") == "RMSNorm",
        qkv_bias=config.flag("add_qkv_bias", usual.qkv_bias),
        rotary=0.0 if learned else usual.rotary or 1.0,
    )


class FinalNorm(RMSNorm):
    """TransformerEngine's kernel."""

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, width) to the same."""
        return fused_rms_norm(t, x, t.parameter(self.weight))


class MegatronGPT(CausalDecoder):
    """The causal language model, or a rank's part of it."""

    framework = "megatron"
    no_adapters = "adapters on Megatron's fused layers are not modelled"

    def __init__(self, config: Config) -> None:
        name = config.text("model_type", "")
        self.style = style = _style(config, STYLES[name])
        wide = 4 * config.integer("hidden_size", "n_embd", "d_model")
        plain = name == "gpt2"
        s = Shape.read(config, tied=plain, intermediate=wide, rotary=style.rotary or 1.0, dropout=0.1 if plain else 0.0)
        drop = next((key for key in ("hidden_dropout", "resid_pdrop") if config.has(key)), "hidden_dropout")
        self.hidden_dropout = config.number(drop, 0.1 if plain else 0.0, 0, 1)
        norm = FinalNorm if style.rms else LayerNorm
        self.assemble(s, lambda _: CoreLayer(s, RankShare(), style, self.hidden_dropout), [None] * s.layers, norm=norm)
        self.buffer_bytes = 0 if plain else self.buffer_bytes
        self._share = RankShare()
        if not style.rotary:
            places = config.integer("max_position_embeddings", "n_positions", default=1024)
            self.learned_positions = places
            self.inner.position_embeddings = Embedding(places, s.hidden)

    def share_out(self, p: Parallelism) -> None:
        """Leave one rank's part of every layer, of the vocabulary and of the head.

        Raises:
            InvalidInput: heads, neurons or vocabulary do not divide.
        """
        s, tp = self.s, p.tp
        for size, what in ((s.heads, "heads"), (s.kv_heads, "key-value heads"), (s.intermediate, "intermediate_size"),
                           (s.vocabulary, "vocabulary")):  # fmt: skip
            if size % tp:
                raise InvalidInput(
                    f"{size} ({what}) does not divide into {tp} ranks",
                    field="parallelism.tp",
                    hint="try a smaller power of two",
                )
        self._share = share = RankShare(tp, p.sequence_parallel)
        for _, stack in self.stacks():
            stack.remake(lambda _: CoreLayer(s, share, self.style, self.hidden_dropout))
        entries, width = self.embedding.weight.shape
        assert isinstance(entries, int)
        self.embedding.weight = Parameter((entries // tp, width))
        self.head.out_features //= tp
        self.head.weight = self.embedding.weight if self.tied else Parameter((self.head.out_features, s.hidden))

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token embeddings, with learned positions and dropout where there are any, position by position."""
        hidden = lookup(t, self.embedding, call)
        call.held.clear()
        if self.learned_positions is not None:
            places = self.inner.position_embeddings(t, SEQUENCE, "position embeddings")
            hidden = t.replace(hidden, ops.add(t, hidden, places, "embeddings with positions"))
        hidden = t.replace(hidden, ops.copy(t, hidden, "embeddings by position"))
        if self._share.sequence:
            size = (hidden.numel // self._share.tp, hidden.dtype, hidden.width)
            whole, number = hidden, t.layer
            part = t.new(*size, "embeddings: this rank's part")
            t.traffic.sent("reduce_scatter", whole.numel * 2, "tp", number)
            all_of_it = (whole.numel, whole.dtype, whole.width)
            t.record("scatter", [part], [whole], [], lambda _: t.new(*all_of_it, "gradient: embeddings", "temporaries"))
            hidden = t.replace(hidden, part)
        hidden = ops.dropout(t, hidden, self.hidden_dropout, "embeddings: dropout")
        self.tables(t, hidden, call)
        return hidden

    def leave_embedding(self) -> None:
        """A later stage has none, nor learned positions."""
        super().leave_embedding()
        if self.learned_positions is not None:
            del self.inner.position_embeddings

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Rotary angles, in float32, for every position."""
        if self.style.rotary:
            call.shared["rotary"] = t.new(SEQUENCE * self.s.rotated, "float32", self.s.rotated, "rotary: angles")

    def masks(self, t: Tape, call: Call) -> None:
        """Kernels are causal by themselves."""

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """The head on this rank's part of the vocabulary; its gathered input has a buffer that stays."""
        share, head = self._share, self.head
        weight = t.parameter(head.weight)
        whole = gathered(t, hidden, share, "head")
        size = (hidden.numel, hidden.dtype, hidden.width)
        wholly = (hidden.numel * share.stream, *size[1:])
        numel = hidden.numel.scaled(share.stream * head.out_features, self.s.hidden)
        out = t.new(numel, hidden.dtype, head.out_features, "logits")

        def apply(g: Tensor) -> Sequence[Tensor | None]:
            inner = t.new(*wholly, "gradient: head input", "temporaries")
            own = reduced(t, inner, share, size, "gradient: head input", 0)
            return [own, *weight_gradients(t, [weight], "gradient: head weight")]

        t.record("head", [out], [hidden, weight], [hidden, whole], apply)
        return out

    def loss(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """`vocab_parallel_cross_entropy`: what backward begins with is the softmax itself."""
        if call.recipe.loss != "full":
            raise InvalidInput(
                f"loss={call.recipe.loss} is not modelled with Megatron's own model code",
                field="loss",
                hint="try loss=full",
            )
        t.ledger.where = "loss"
        logits = self.logits(t, hidden)
        numel, dtype, width = logits.numel, logits.dtype, logits.width
        softmax = t.new(numel, "float32", width, "softmax of the logits, in float32")
        loss = t.new(ONE, "float32", 1, "loss")

        def apply(g: Tensor) -> Any:
            return lambda: t.new(numel, dtype, width, "gradient: logits", "logits")

        t.record("loss", [loss], [logits], [softmax], apply)
        t.end(logits, softmax)
        for _ in range(3 if self._share.tp > 1 else 0):
            t.traffic.sent("all_reduce", TOKENS * 4, "tp")
        return loss

"""The usual decoder in parts: self-attention, layer, and the causal language model around a stack of layers.

A family takes these as they are, or overrides the step in which it differs. Source: transformers 5.23,
models/llama/modeling_llama.py, whose structure the other families repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from loralens.core.architecture.blocks import Attention, GatedMLP, RMSNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import Root, causal_mask, lookup
from loralens.core.architecture.config import Config
from loralens.core.architecture.heads import DECODERS, EMBEDDING, attach_to_decoder, no_such_head
from loralens.core.architecture.module import Embedding, Linear, Module, Stack
from loralens.core.architecture.rotary import rotate_part
from loralens.core.architecture.shape import Shape
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape


class SelfAttention(Module):
    """q, k, v projections, rotary, one attention kernel, output projection."""

    across: Callable[..., Tensor] | None = None  # runs the kernel where other GPUs have parts of the sequence
    softcap = False
    heads_first = False  # query lies in memory by head (it came out of a concatenation), not by token

    def __init__(self, s: Shape, window: int | None = None, *, bias: bool = False, output_bias: bool = False) -> None:
        self.q_proj = Linear(s.hidden, s.heads * s.head_dim, bias, name="attention query")
        self.k_proj = Linear(s.hidden, s.kv_heads * s.head_dim, bias, name="attention key")
        self.v_proj = Linear(s.hidden, s.kv_heads * s.head_dim, bias, name="attention value")
        self.o_proj = Linear(s.heads * s.head_dim, s.hidden, output_bias, name="attention output projection")
        self.s = s
        self.mask = "sliding" if window else "full"

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value by head."""
        width = self.s.head_dim
        return self.q_proj(t, x).view(width), self.k_proj(t, x).view(width), self.v_proj(t, x).view(width)

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """Rotary embedding of query and key."""
        return rotate_part(t, q, k, call.shared["rotary"], self.s.rotated)

    def kernel(self, call: Call) -> Attention:
        """The attention product."""
        s = self.s
        return Attention(
            s.heads,
            s.kv_heads,
            s.head_dim,
            s.head_dim,
            call.attention,
            s.attention_dropout,
            self.softcap,
            heads_first=self.heads_first,
        )

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        q, k, v = self.project(t, x)
        q, k = self.position(t, q, k, call)
        kernel, mask = self.kernel(call), call.masks[self.mask]
        out = kernel(t, q, k, v, mask) if self.across is None else self.across(kernel, t, q, k, v, mask)
        return self.output(t, out.view(self.s.heads * self.s.head_dim))

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """The output projection."""
        return self.o_proj(t, x)


class DecoderLayer(Module):
    """Pre-norm attention and gated MLP on a residual stream."""

    def __init__(
        self, s: Shape, attention: Module, mlp: Module | None = None, norm: Callable[[int], Module] = RMSNorm
    ) -> None:
        self.self_attn = attention
        self.mlp = GatedMLP(s.hidden, s.intermediate, act=s.act) if mlp is None else mlp
        self.input_layernorm = norm(s.hidden)
        self.post_attention_layernorm = norm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = ops.add(t, residual, self.branch(t, hidden), "residual stream after attention")
        residual = hidden
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = self.feed_forward(t, hidden)
        return ops.add(t, residual, self.branch(t, hidden), "residual stream after the layer")

    def feed_forward(self, t: Tape, hidden: Tensor) -> Tensor:
        """The MLP, or what stands in its place."""
        out: Tensor = self.mlp(t, hidden)
        return out

    def branch(self, t: Tape, x: Tensor) -> Tensor:
        """What happens to a branch's result before it joins the residual stream."""
        return x


class PostNormLayer(Module):
    """Attention and gated MLP whose results are normed before they join the residual stream."""

    def __init__(self, s: Shape, attention: Module, norm: Callable[[int], Module] = RMSNorm) -> None:
        self.self_attn = attention
        self.mlp = GatedMLP(s.hidden, s.intermediate, act=s.act)
        self.post_attention_layernorm = norm(s.hidden)
        self.post_feedforward_layernorm = norm(s.hidden)

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.self_attn(t, hidden, call)
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.mlp(t, hidden)
        hidden = self.post_feedforward_layernorm(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


@dataclass(frozen=True, slots=True)
class PartNames:
    """What a family calls its parts."""

    inner: str = "model"
    embedding: str = "embed_tokens"
    stack: str = "layers"
    norm: str = "norm"


class CausalDecoder(Root):
    """Embedding, a stack of layers, final norm and head; what every decoder-only language model is."""

    default_targets: tuple[str, ...] | str = ("q_proj", "v_proj")
    caches = True
    embedding_dropout = 0.0
    both_masks = False  # makes the full and the sliding mask, whether or not layers use both

    def assemble(
        self,
        s: Shape,
        layer: Callable[[Any], Module],
        kinds: Sequence[Hashable],
        *,
        norm: Callable[[int], Module] = RMSNorm,
        names: PartNames | None = None,
        head_bias: bool = False,
        tied: bool | None = None,
    ) -> Module:
        """Put the parts together under the family's names; returns the inner model."""
        names = names or PartNames()
        inner = Module()
        setattr(inner, names.embedding, Embedding(s.vocabulary, s.hidden))
        setattr(inner, names.stack, Stack(layer, kinds))
        setattr(inner, names.norm, norm(s.hidden))
        setattr(self, names.inner, inner)
        self.s = s
        self.lm_head = Linear(s.hidden, s.vocabulary, head_bias, name="head")
        self.head = self.lm_head
        self.vocabulary = s.vocabulary
        self.tied = s.tied if tied is None else tied
        self.buffer_bytes = s.rotated // 2 * 4 * 2  # inverse frequencies and their copy
        self._inner, self._names = names.inner, names
        if self.tied:
            self.lm_head.weight = self.embedding.weight
        return inner

    def take_head(self, model_type: str, kind: str, labels: int, config: Config) -> None:
        """Every decoder has its base model; the other heads are those that transformers has."""
        if kind != EMBEDDING and kind not in DECODERS.get(model_type, ()):
            raise no_such_head(model_type, kind)
        width = self.head.in_features
        for name in [name for name in ("lm_head", "embed_out", "head") if name in vars(self)]:
            delattr(self, name)
        attach_to_decoder(self, model_type, kind, labels, width, config)

    @property
    def names(self) -> PartNames:
        """What the family calls its parts."""
        return self._names

    @property
    def inner(self) -> Module:
        """The model under the head."""
        found: Module = self
        for name in self._inner.split("."):
            found = getattr(found, name)
        return found

    @property
    def embedding(self) -> Embedding:
        """The token embedding."""
        found: Embedding = getattr(self.inner, self._names.embedding)
        return found

    def leave_embedding(self) -> None:
        """A later stage has none."""
        delattr(self.inner, self._names.embedding)

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token embeddings, masks and rotary tables."""
        hidden = self.scaled_embeddings(t, lookup(t, self.embedding, call), call)
        self.masks(t, call)
        hidden = ops.dropout(t, hidden, self.embedding_dropout, "embeddings: dropout")
        self.tables(t, hidden, call)
        return hidden

    def scaled_embeddings(self, t: Tape, tokens: Tensor, call: Call) -> Tensor:
        """What a family does to the embeddings at once."""
        return tokens

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Rotary tables."""
        if self.s.rotated:
            call.shared["rotary"] = Rotary(self.s.rotated).tables(t, hidden)

    def masks(self, t: Tape, call: Call) -> None:
        """The masks that the layers ask for."""
        windows = {window for window in self.s.windows if window}
        if None in self.s.windows or self.both_masks:
            call.masks["full"] = causal_mask(t, call)
        if windows:
            call.masks["sliding"] = causal_mask(t, call, sliding_window=min(windows))

    def finish(self, t: Tape, hidden: Tensor) -> Tensor:
        """Final norm."""
        out: Tensor = getattr(self.inner, self._names.norm)(t, hidden)
        return out

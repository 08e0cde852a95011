"""Gemma 1, 2 and 3 (text): scaled embeddings, norms with 1 + weight, soft-capped logits, sliding and full layers.

Source: transformers 5.23, models/{gemma,gemma2,gemma3}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import GatedMLP, GemmaRMSNorm, Rotary
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import hold_embeddings, position_ids
from loralens.core.architecture.config import Config
from loralens.core.architecture.decoder import CausalDecoder, DecoderLayer, SelfAttention
from loralens.core.architecture.module import Module
from loralens.core.architecture.shape import Shape, by_layer_types
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.size import TOKENS, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape


class SandwichLayer(Module):
    """Norms before and after each branch (Gemma 2 and 3)."""

    def __init__(self, s: Shape, attention: Module) -> None:
        self.self_attn = attention
        self.mlp = GatedMLP(s.hidden, s.intermediate, act=s.act)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            setattr(self, f"{name}_layernorm", GemmaRMSNorm(s.hidden))

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.pre_feedforward_layernorm(t, hidden)
        hidden = self.mlp(t, hidden)
        hidden = self.post_feedforward_layernorm(t, hidden)
        return ops.add(t, residual, hidden, "residual stream after the layer")


class Gemma3Attention(SelfAttention):
    """Query and key are normed head by head; sliding and full layers turn with tables of their own."""

    def __init__(self, s: Shape, window: int | None, *, bias: bool) -> None:
        super().__init__(s, window, bias=bias, output_bias=bias)
        self.q_norm = GemmaRMSNorm(s.head_dim)
        self.k_norm = GemmaRMSNorm(s.head_dim)

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, then norms."""
        q, k, v = super().project(t, x)
        q = self.q_norm(t, q)
        k = self.k_norm(t, k)
        return q, k, v

    def position(self, t: Tape, q: Tensor, k: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        """The tables of this kind of layer."""
        from loralens.core.architecture.rotary import rotate_part

        return rotate_part(t, q, k, call.shared[f"rotary, {self.mask}"], self.s.rotated)


class Gemma(CausalDecoder):
    """Gemma 1, and the base of its successors."""

    kv_heads: int | None = 16
    capped = False
    attention = SelfAttention

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, kv_heads=self.kv_heads, head_dim=256, act="gelu_pytorch_tanh")
        s = s.with_windows(self.windows(config, s.layers))
        bias = config.flag("attention_bias", False)
        config.refuse("use_bidirectional_attention", "bidirectional attention")
        self.capped = config.number("final_logit_softcapping", 30.0 if self.capped else 0.0) > 0 and (
            "final_logit_softcapping" not in config.entries or config.has("final_logit_softcapping")
        )
        self.assemble(s, lambda window: self.layer(s, window, bias), s.windows, norm=GemmaRMSNorm)

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """Every layer's sliding window."""
        return (None,) * layers

    def layer(self, s: Shape, window: int | None, bias: bool) -> Module:
        """One decoder layer."""
        return DecoderLayer(s, SelfAttention(s, bias=bias, output_bias=bias), norm=GemmaRMSNorm)

    def embed(self, t: Tape, call: Call) -> Tensor:
        """Token embeddings times the square root of the width."""
        hidden = ops.scale(t, self.embedding(t, TOKENS), "embeddings, scaled")
        hold_embeddings(t, hidden, call)
        if call.media is not None:
            hidden = call.media.placed(t, hidden, call)
        position_ids(t, call)
        self.masks(t, call)
        self.tables(t, hidden, call)
        return hidden

    def masks(self, t: Tape, call: Call) -> None:
        """The tokens of a picture (with PaliGemma all before the answer) see each other: masks are made for every sample."""
        if call.media is None or call.media.pictures(call.recipe) is None:
            return super().masks(t, call)
        dtype = "bool" if call.attention == "sdpa" else call.held[0].dtype
        for kind in ("full", "sliding") if self.both_masks else ("full",):
            call.masks[kind] = t.new(TOKENS_BY_SEQUENCE, dtype, 1, "attention mask")
        return None

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """Rotary tables."""
        call.shared["rotary"] = Rotary(self.s.rotated).tables(t, hidden)

    def logits(self, t: Tape, hidden: Tensor) -> Tensor:
        """The head, and tanh soft-capping where the config asks for it."""
        logits = super().logits(t, hidden)
        if self.capped:
            logits = ops.scale(t, logits, "logits / cap")
            logits = ops.tanh(t, logits, "tanh of logits")
            logits = ops.scale(t, logits, "capped logits")
        return logits


class Gemma2Attention(SelfAttention):
    """Soft-capped scores, which no SDPA kernel computes."""

    softcap = True


class Gemma2(Gemma):
    """Every other layer slides; attention runs eagerly because of the soft cap."""

    kv_heads = 4
    capped = True
    both_masks = True

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """Sliding first, then alternating."""
        window = config.integer("sliding_window", default=4096, high=2**31)
        return by_layer_types(config, layers, tuple(None if index % 2 else window for index in range(layers)), window)

    def layer(self, s: Shape, window: int | None, bias: bool) -> Module:
        """One decoder layer."""
        return SandwichLayer(s, Gemma2Attention(s, window, bias=bias, output_bias=bias))

    def attention_for(self, recipe: Recipe) -> str:
        """SDPA knows no soft cap; transformers falls back to eager."""
        return "eager" if recipe.attention == "sdpa" else recipe.attention


class Gemma3(Gemma):
    """Five sliding layers, then a full one; norms on query and key."""

    kv_heads = 4
    both_masks = True

    def windows(self, config: Config, layers: int) -> tuple[int | None, ...]:
        """By `layer_types`, or every sixth layer full."""
        window = config.integer("sliding_window", default=4096, high=2**31)
        every = config.integer("sliding_window_pattern", "_sliding_window_pattern", default=6, high=2**20)
        return by_layer_types(
            config, layers, tuple(None if (index + 1) % every == 0 else window for index in range(layers)), window
        )

    def layer(self, s: Shape, window: int | None, bias: bool) -> Module:
        """One decoder layer."""
        return SandwichLayer(s, Gemma3Attention(s, window, bias=bias))

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """One pair for each kind of layer."""
        for window in set(self.s.windows):
            call.shared[f"rotary, {'sliding' if window else 'full'}"] = Rotary(self.s.rotated).tables(t, hidden)

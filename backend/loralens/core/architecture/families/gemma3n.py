"""Gemma 3n (text): inputs for each layer, layers that share keys and values; counted, not walked.

Source: transformers 5.23, models/gemma3n/{configuration,modeling}_*.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from loralens.core.architecture.blocks import GatedMLP, RMSNorm
from loralens.core.architecture.config import MAX_LAYERS, MAX_VOCABULARY, Config
from loralens.core.architecture.counting import CountedDecoder
from loralens.core.architecture.decoder import SelfAttention
from loralens.core.architecture.module import Embedding, Linear, Module
from loralens.core.architecture.shape import Shape
from loralens.core.errors import InvalidInput
from loralens.core.tape.parameter import Parameter

_NORMS = ("input", "post_attention", "pre_feedforward", "post_feedforward")


class Gemma3nLayerKind(NamedTuple):
    """What tells one layer from another."""

    head_dim: int
    kv_heads: int
    shares: bool  # takes keys and values from an earlier layer
    one_for_both: bool  # the key's projection makes the value too
    intermediate: int


class SharedAttention(SelfAttention):
    """Norms on query and key; no projections of its own for what another layer makes."""

    def __init__(self, s: Shape, kind: Gemma3nLayerKind, bias: bool) -> None:
        own = replace(s, head_dim=kind.head_dim, kv_heads=kind.kv_heads)
        super().__init__(own, bias=bias, output_bias=bias)
        self.q_norm = RMSNorm(kind.head_dim)
        self.k_norm = RMSNorm(kind.head_dim)
        if kind.shares:
            del self.k_proj, self.v_proj, self.k_norm
        elif kind.one_for_both:
            del self.v_proj


class PerLayerInputs:
    """Sizes of the inputs that each layer gets of its own."""

    def __init__(self, config: Config, layers: int) -> None:
        self.width = config.integer("hidden_size_per_layer_input", default=256, low=0)
        self.vocabulary = config.integer("vocab_size_per_layer_input", default=262144, high=MAX_VOCABULARY)
        self.layers = layers

    def into_layer(self, layer: Module, hidden: int, norm: type[RMSNorm] = RMSNorm) -> None:
        """Gate, projection and norm of one layer."""
        if self.width:
            layer.per_layer_input_gate = Linear(hidden, self.width, name="per-layer input gate")
            layer.per_layer_projection = Linear(self.width, hidden, name="per-layer projection")
            layer.post_per_layer_input_norm = norm(hidden)

    def into_model(self, inner: Module, hidden: int, norm: type[RMSNorm] = RMSNorm) -> None:
        """The table, and the projection of the embeddings."""
        if self.width:
            together = self.layers * self.width
            inner.embed_tokens_per_layer = Embedding(self.vocabulary, together)
            inner.per_layer_model_projection = Linear(hidden, together, name="per-layer model projection")
            inner.per_layer_projection_norm = norm(self.width)


class SandwichedLayer(Module):
    """Attention and MLP with norms before and after each."""

    def __init__(self, s: Shape, kind: Gemma3nLayerKind, bias: bool, inputs: PerLayerInputs) -> None:
        self.self_attn = SharedAttention(s, kind, bias)
        self.mlp = GatedMLP(s.hidden, kind.intermediate, act=s.act)
        for name in _NORMS:
            setattr(self, f"{name}_layernorm", RMSNorm(s.hidden))
        inputs.into_layer(self, s.hidden)


class AltUp(Module):
    """Several copies of the residual stream, of which one is computed and the others are predicted."""

    def __init__(self, hidden: int, copies: int) -> None:
        self.correct_output_scale = Parameter((hidden,))
        self.correction_coefs = Linear(copies, copies, name="altup correction")
        self.prediction_coefs = Linear(copies, copies**2, name="altup prediction")
        self.modality_router = Linear(hidden, copies, name="altup router")
        self.router_norm = RMSNorm(hidden)


class Laurel(Module):
    """A learned low-rank residual."""

    def __init__(self, hidden: int, rank: int) -> None:
        self.linear_left = Linear(hidden, rank, name="laurel left")
        self.linear_right = Linear(rank, hidden, name="laurel right")
        self.post_laurel_norm = RMSNorm(hidden)


def first_sharing(config: Config, layers: int, default: int) -> int:
    """The first layer that takes its keys and values from an earlier one."""
    shared = config.integer("num_kv_shared_layers", default=default, low=0, high=MAX_LAYERS)
    if shared >= layers:
        raise InvalidInput(
            f"config.num_kv_shared_layers {shared} must be less than num_hidden_layers, {layers}",
            field="config.num_kv_shared_layers",
        )
    return layers - shared


class Gemma3n(CountedDecoder):
    """Gemma 3n."""

    family = "gemma3n_text"

    def __init__(self, config: Config) -> None:
        given = config.entries.get("intermediate_size")
        widths = config.integers("intermediate_size") if isinstance(given, (list, tuple)) else None
        own = config if widths is None else config.over({"intermediate_size": 1})
        s = Shape.read(own, tied=True, kv_heads=2, head_dim=256, act="gelu_pytorch_tanh")
        widths = [s.intermediate] * s.layers if widths is None else widths
        if len(widths) != s.layers or not all(widths):
            raise InvalidInput(
                f"config.intermediate_size must be one width or one for each of {s.layers} layers",
                field="config.intermediate_size",
            )
        copies = config.integer("altup_num_inputs", default=4, high=1_024)
        rank = config.integer("laurel_rank", default=64)
        bias, inputs = config.flag("attention_bias", False), PerLayerInputs(config, s.layers)
        first = first_sharing(config, s.layers, 15)

        def layer(kind: Gemma3nLayerKind) -> SandwichedLayer:
            made = SandwichedLayer(s, kind, bias, inputs)
            made.altup, made.laurel = AltUp(s.hidden, copies), Laurel(s.hidden, rank)
            return made

        kinds = [
            Gemma3nLayerKind(s.head_dim, s.kv_heads, index >= first, False, width) for index, width in enumerate(widths)
        ]
        inner = self.assemble(s, layer, kinds, norm=RMSNorm)
        inputs.into_model(inner, s.hidden)
        for name in ("altup_projections", "altup_unembed_projections"):
            setattr(inner, name, several := Module())
            for index in range(copies - 1):
                setattr(several, str(index), Linear(s.hidden, s.hidden, name=name.replace("_", " ")))

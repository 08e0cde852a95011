"""Gemma 4 (text): full layers with wider heads, an input of its own for each layer, experts beside the MLP in some sizes.

Source: transformers 5.23, models/gemma4/modeling_gemma4.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from loralens.core.architecture.activations import activation
from loralens.core.architecture.blocks import GatedMLP, Rotary, rotate
from loralens.core.architecture.call import Call
from loralens.core.architecture.causal import causal_mask
from loralens.core.architecture.config import MAX_EXPERTS, Config
from loralens.core.architecture.decoder import CausalDecoder, SelfAttention
from loralens.core.architecture.families.gemma import Gemma
from loralens.core.architecture.families.per_layer import PerLayerInputs, PowerNorm, first_sharing, scaled_in_place
from loralens.core.architecture.families.state_space import layer_kinds
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import ROUTING, Experts, best
from loralens.core.architecture.shape import MAX_HEADS, Shape
from loralens.core.errors import UnsupportedArchitecture
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.parameter import Parameter
from loralens.core.tape.selecting import divide_by
from loralens.core.tape.size import TOKENS, TOKENS_BY_SEQUENCE
from loralens.core.tape.tape import Tape

_KINDS = ("sliding_attention", "full_attention")


class Gemma4LayerKind(NamedTuple):
    """What tells one layer from another."""

    mask: str  # sliding or full
    head_dim: int
    kv_heads: int
    shares: bool  # takes keys and values from an earlier layer
    stores: bool  # ... which is this one
    one_for_both: bool  # the key's projection makes the value too
    intermediate: int


class Gemma4Attention(SelfAttention):
    """Norms on query, key and value; some layers make key and value with one matrix."""

    def __init__(self, s: Shape, kind: Gemma4LayerKind, bias: bool) -> None:
        own = replace(s, head_dim=kind.head_dim, kv_heads=kind.kv_heads)
        super().__init__(own, bias=bias, output_bias=bias)
        self.mask = kind.mask
        self.q_norm, self.k_norm = PowerNorm(kind.head_dim), PowerNorm(kind.head_dim)
        self.v_norm = PowerNorm(kind.head_dim, scaled=False)
        self._kind = kind
        if kind.shares:
            del self.k_proj, self.v_proj, self.k_norm, self.v_norm
        elif kind.one_for_both:
            del self.v_proj

    def forward(self, t: Tape, x: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        width, tables = self.s.head_dim, call.shared[f"rotary, {self.mask}"]
        q = self.q_proj(t, x).view(width)
        q = self.q_norm(t, q)
        q = rotate(t, q, tables, "attention query")
        stored = call.shared["keys and values"]
        k, v = stored[self.mask] if self._kind.shares else self.keys_and_values(t, x, tables)
        if self._kind.stores:
            stored[self.mask] = k, v
        out = self.kernel(call)(t, q, k, v, call.masks[self.mask])
        return self.output(t, out.view(self.s.heads * width))

    def keys_and_values(self, t: Tape, x: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Projected and normed; the key is turned."""
        width = self.s.head_dim
        k = self.k_proj(t, x).view(width)
        v = k if self._kind.one_for_both else self.v_proj(t, x).view(width)
        k = self.k_norm(t, k)
        k = rotate(t, k, tables, "attention key")
        return k, self.v_norm(t, v)


class Gemma4Router(Module):
    """Normed and scaled tokens, scored; each chosen expert's weight has a scale of its own."""

    def __init__(self, hidden: int, experts: int, chosen: int) -> None:
        self.norm = PowerNorm(hidden, scaled=False)
        self.proj = Linear(hidden, experts, name="router")
        self.scale = Parameter((hidden,))
        self.per_expert_scale = Parameter((experts,))
        self.chosen = chosen

    def forward(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts, (rows, chosen) each."""
        x = self.norm(t, x)
        x = ops.mul(t, x, t.parameter(self.scale), "router: scaled input")
        x = ops.scale(t, x, "router: input")
        scores = ops.softmax(t, self.proj(t, x), "float32", "router: scores")
        values, numbers = best(t, scores, self.chosen)
        total = ops.total(t, values, "router: sum of the chosen scores", numel=TOKENS, width=1)
        values = divide_by(t, values, total, "router: normed scores")
        scale = ops.indexed(t, t.parameter(self.per_expert_scale), numbers, values.numel, self.chosen, "router: scales")
        return ops.mul(t, values, scale, "router: weights"), numbers


class Gemma4Layer(Module):
    """Attention and MLP with norms before and after each, experts beside the MLP, and the layer's own input."""

    def __init__(
        self, s: Shape, kind: Gemma4LayerKind, bias: bool, inputs: PerLayerInputs, sparse: tuple[int, int, int]
    ) -> None:
        self.self_attn = Gemma4Attention(s, kind, bias)
        self.mlp = GatedMLP(s.hidden, kind.intermediate, act=s.act)
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            setattr(self, f"{name}_layernorm", PowerNorm(s.hidden))
        inputs.into_layer(self, s.hidden, PowerNorm)
        self._inputs, self._act, self._sparse = inputs.width, s.act, bool(sparse[0])
        if sparse[0]:
            experts, chosen, width = sparse
            self.router = Gemma4Router(s.hidden, experts, chosen)
            self.experts = Experts(s.hidden, width, experts, s.act)
            for name in ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2"):
                setattr(self, name, PowerNorm(s.hidden))

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        own = call.shared.get("per-layer inputs")
        if own is not None:
            own = ops.cut(t, own, "per-layer input", numel=TOKENS * self._inputs, width=self._inputs)
        residual = hidden
        hidden = self.input_layernorm(t, hidden)
        hidden = self.self_attn(t, hidden, call)
        hidden = self.post_attention_layernorm(t, hidden)
        hidden = ops.add(t, residual, hidden, "residual stream after attention")
        residual = hidden
        hidden = self.pre_feedforward_layernorm(t, hidden)
        hidden = self.mlp(t, hidden)
        if self._sparse:
            hidden = self.with_experts(t, hidden, residual)
        hidden = self.post_feedforward_layernorm(t, hidden)
        hidden = ops.add(t, residual, hidden, "residual stream after the MLP")
        if own is not None:
            residual = hidden
            hidden = self.per_layer_input_gate(t, hidden)
            hidden = activation(t, hidden, self._act, "per-layer input: activated gate")
            hidden = ops.mul(t, hidden, own, "per-layer input: product")
            hidden = self.per_layer_projection(t, hidden)
            hidden = self.post_per_layer_input_norm(t, hidden)
            hidden = ops.add(t, residual, hidden, "residual stream after the layer")
        return scaled_in_place(t, hidden, "residual stream, scaled")

    def arguments(self, call: Call) -> Call:
        """The mask and the tables of its kind, beside what all layers get."""
        mask = self.self_attn.mask
        taken = {name: value for name, value in call.shared.items() if not name.startswith("rotary")}
        tables = {f"rotary, {mask}": call.shared[f"rotary, {mask}"]}
        return replace(call, masks={mask: call.masks[mask]}, shared=taken | tables)

    def with_experts(self, t: Tape, hidden: Tensor, residual: Tensor) -> Tensor:
        """The MLP's result and the experts', which take the residual stream; each is normed."""
        first = t.local(self.post_feedforward_layernorm_1(t, hidden))
        weights, numbers = self.router(t, residual)
        second = self.pre_feedforward_layernorm_2(t, residual)
        second = self.experts(t, second, weights, numbers, self.router.chosen)
        second = t.local(self.post_feedforward_layernorm_2(t, second))
        return ops.add(t, first, second, "MLP plus experts")


class Gemma4(Gemma):
    """The causal language model."""

    caches = False
    last_apart = True
    blocks = ""  # which tokens see each other, where the config says nothing: "vision", those of a picture

    def __init__(self, config: Config) -> None:
        s = Shape.read(config, tied=True, kv_heads=4, head_dim=256, act="gelu_pytorch_tanh")
        if config.text("use_bidirectional_attention", "") == "all":
            raise UnsupportedArchitecture(
                "bidirectional attention is not modelled", field="config.use_bidirectional_attention"
            )
        silent = "use_bidirectional_attention" not in config.entries
        self._blocks = (self.blocks if silent else config.text("use_bidirectional_attention", "")) == "vision"
        default = ["full_attention" if (index + 1) % 6 == 0 else "sliding_attention" for index in range(s.layers)]
        layers = layer_kinds(config, ("layer_types",), default, _KINDS)
        layers[-1] = "full_attention"  # as transformers forces it
        window = config.integer("sliding_window", default=512, high=2**31)
        s = s.with_windows(tuple(window if kind == "sliding_attention" else None for kind in layers))
        first = first_sharing(config, s.layers, 0)
        bias, inputs = config.flag("attention_bias", False), PerLayerInputs(config, s.layers)
        self.capped = config.has("final_logit_softcapping") and config.number("final_logit_softcapping", 0.0) > 0
        self._sparse = config.flag("enable_moe_block", False)
        sparse = (0, 0, 0)
        if self._sparse:
            experts = config.integer("num_experts", high=MAX_EXPERTS)
            chosen = config.integer("top_k_experts", "num_experts_per_tok", high=experts)
            sparse = experts, chosen, config.integer("moe_intermediate_size")
        last = {kind: index for index, kind in enumerate(layers[:first])} if first < s.layers else {}
        kinds = [
            _kind(config, s, index, kind, shares=index >= first, stores=last.get(kind) == index)
            for index, kind in enumerate(layers)
        ]
        inner = self.assemble(s, lambda kind: Gemma4Layer(s, kind, bias, inputs, sparse), kinds, norm=PowerNorm)
        inputs.into_model(inner, s.hidden, PowerNorm)
        self._inputs, self._widths = inputs, {kind.mask: kind.head_dim for kind in kinds}
        self.buffer_bytes = sum(width // 2 * 4 * 2 for width in self._widths.values())

    def beside(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """The layers' own inputs: a table's rows and a projection of the embeddings, normed, added and scaled."""
        width = self._inputs.width
        if not width:
            return
        rows = ops.scale(
            t, self.inner.embed_tokens_per_layer(t, TOKENS, "per-layer embeddings"), "per-layer embeddings, scaled"
        )
        if call.media is not None:  # the whole model's forward holds them, and embeddings in which pictures are padding
            call.held += [rows, t.new(hidden.numel, hidden.dtype, hidden.width, "embeddings without pictures")]
        projected = ops.scale(t, self.inner.per_layer_model_projection(t, hidden), "per-layer projection, scaled")
        projected = self.inner.per_layer_projection_norm(t, projected.view(width))
        both = ops.add(t, projected, rows, "per-layer inputs, added")
        t.end(projected)
        call.shared["per-layer inputs"] = ops.scale(t, both, "per-layer inputs")

    def masks(self, t: Tape, call: Call) -> None:
        """Both are made, after the layers' own inputs; layers put keys and values for later ones into a place of their own."""
        call.shared["keys and values"] = {}
        self.beside(t, call.held[0], call)
        if not self.in_blocks(t, call):
            CausalDecoder.masks(self, t, call)

    def in_blocks(self, t: Tape, call: Call) -> bool:
        """Masks in which the tokens of a picture see each other, in sliding layers; False where there is no need for any."""
        if call.media is None or not self._blocks or call.media.pictures(call.recipe) is None:
            return False
        dtype = "bool" if call.attention == "sdpa" else call.held[0].dtype
        call.masks["full"] = causal_mask(t, call)
        call.masks["sliding"] = t.new(TOKENS_BY_SEQUENCE, dtype, 1, "attention mask")
        return True

    both_masks = True

    def tables(self, t: Tape, hidden: Tensor, call: Call) -> None:
        """One pair for each kind of layer, as wide as its heads."""
        for mask, width in self._widths.items():
            call.shared[f"rotary, {mask}"] = Rotary(width).tables(t, hidden)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), *([ROUTING] if self._sparse else [])]


class Gemma4Unified(Gemma4):
    """The text model of Gemma 4's encoder-free sizes: the same code without inputs for each layer and without experts.

    Source: transformers 5.23, models/gemma4_unified/modular_gemma4_unified.py.
    """

    blocks = "vision"

    def in_blocks(self, t: Tape, call: Call) -> bool:
        """Both masks are made for every sample, pictures or not."""
        if call.media is None or not self._blocks:
            return False
        dtype = "bool" if call.attention == "sdpa" else call.held[0].dtype
        for kind in ("full", "sliding"):
            call.masks[kind] = t.new(TOKENS_BY_SEQUENCE, dtype, 1, "attention mask")
        return True

    def __init__(self, config: Config) -> None:
        own = {"hidden_size_per_layer_input": 0, "enable_moe_block": False}
        super().__init__(config.over(own, {"sliding_window": 1024}))


def _kind(config: Config, s: Shape, index: int, kind: str, *, shares: bool, stores: bool) -> Gemma4LayerKind:
    full = kind == "full_attention"
    both = config.flag("attention_k_eq_v", False)
    own = config.nested("per_layer_config")
    if own is not None:
        found = own.entries.get(str(index), own.entries.get(index))  # type: ignore[call-overload]
        own = Config(found, config.transformers) if isinstance(found, Mapping) else Config({})
    else:
        own = Config({"head_dim": config.integer("global_head_dim", default=512, high=MAX_HEADS)} if full else {})
        if full and both and config.has("num_global_key_value_heads"):
            heads = config.integer("num_global_key_value_heads", high=MAX_HEADS)
            own = own.over({"num_key_value_heads": heads})
    kv_heads = own.integer("num_key_value_heads", default=s.kv_heads, high=MAX_HEADS)
    config.divides("num_attention_heads", s.heads, kv_heads)
    wide = 2 if config.flag("use_double_wide_mlp", False) and shares else 1
    return Gemma4LayerKind(
        "full" if full else "sliding",
        own.integer("head_dim", default=s.head_dim, high=MAX_HEADS),
        kv_heads,
        shares,
        stores,
        both and full,
        wide * s.intermediate,
    )

"""LFM2: gated short convolutions between attention layers, and its mixture.

Source: transformers 5.23, models/{lfm2,lfm2_moe}/modeling_*.py.
"""

from __future__ import annotations

from loralens.core.architecture.blocks import RMSNorm
from loralens.core.architecture.call import Call
from loralens.core.architecture.config import MAX_EXPERTS, MAX_LAYERS, Config
from loralens.core.architecture.decoder import CausalDecoder, PartNames, SelfAttention
from loralens.core.architecture.families.state_space import MAX_KERNEL, ShortConvolution, layer_kinds, mixers_as
from loralens.core.architecture.module import Linear, Module
from loralens.core.architecture.moe import ROUTING, Experts, SparseMLP
from loralens.core.architecture.moe_sigmoid import SigmoidRouter
from loralens.core.architecture.shape import Shape
from loralens.core.question.recipe import Recipe
from loralens.core.tape import ops
from loralens.core.tape.graph import Tensor
from loralens.core.tape.tape import Tape

_NAMES = PartNames(norm="embedding_norm")


class LfmMLP(Module):
    """`w2(silu(w1(x)) * w3(x))`."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        self.w1 = Linear(hidden, intermediate, name="mlp gate")
        self.w3 = Linear(hidden, intermediate, name="mlp up")
        self.w2 = Linear(intermediate, hidden, name="mlp down")

    def forward(self, t: Tape, x: Tensor) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        gate = ops.silu(t, self.w1(t, x), "mlp: activated gate")
        return self.w2(t, ops.mul(t, gate, self.w3(t, x), "mlp: product"))


class LfmAttention(SelfAttention):
    """Norms on query and key."""

    def __init__(self, s: Shape) -> None:
        super().__init__(s)
        del self.o_proj
        self.out_proj = Linear(s.heads * s.head_dim, s.hidden, name="attention output projection")
        self.q_layernorm = RMSNorm(s.head_dim)
        self.k_layernorm = RMSNorm(s.head_dim)

    def project(self, t: Tape, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projections, then norms."""
        width = self.s.head_dim
        q = self.q_layernorm(t, self.q_proj(t, x).view(width))
        k = self.k_layernorm(t, self.k_proj(t, x).view(width))
        return q, k, self.v_proj(t, x).view(width)

    def output(self, t: Tape, x: Tensor) -> Tensor:
        """The output projection, under its own name."""
        return self.out_proj(t, x)


class LfmLayer(Module):
    """Attention or a convolution, then the MLP."""

    def __init__(self, s: Shape, attention: Module | None, convolution: Module | None, mlp: Module) -> None:
        if attention is not None:
            self.self_attn = attention
        if convolution is not None:
            self.conv = convolution
        self.feed_forward = mlp
        self.operator_norm = RMSNorm(s.hidden)
        self.ffn_norm = RMSNorm(s.hidden)
        self._mixer = "conv" if attention is None else "self_attn"

    def forward(self, t: Tape, hidden: Tensor, call: Call) -> Tensor:
        """Shapes: (rows, hidden) to the same."""
        residual = hidden
        hidden = getattr(self, self._mixer)(t, self.operator_norm(t, hidden), call)
        hidden = ops.add(t, hidden, residual, "residual stream after attention")
        fed = self.feed_forward(t, self.ffn_norm(t, hidden))
        return ops.add(t, hidden, fed, "residual stream after the layer")


class Lfm2(CausalDecoder):
    """The causal language model."""

    mixes = True
    intermediate: int = 12288

    def __init__(self, config: Config) -> None:
        s = self.shape(config)
        bias, kernel = config.flag("conv_bias", False), config.integer("conv_L_cache", default=3, high=MAX_KERNEL)
        kinds = layer_kinds(config, ("layer_types",), self.default_kinds(config, s), ("full_attention", "conv"))

        def layer(kind: tuple[str, bool]) -> LfmLayer:
            if kind[0] == "conv":
                return LfmLayer(s, None, ShortConvolution(s.hidden, kernel, bias), self.mlp(config, s, kind[1]))
            return LfmLayer(s, LfmAttention(s), None, self.mlp(config, s, kind[1]))

        self.assemble(s, layer, list(zip(kinds, self.sparse(config, s.layers), strict=True)), names=_NAMES)

    def shape(self, config: Config) -> Shape:
        """Sizes, under LFM2's own names where it has them."""
        names = {"tie_embedding": "tie_word_embeddings", "block_ff_dim": "intermediate_size"}
        own = config.over({usual: config.entries[name] for name, usual in names.items() if name in config.entries})
        return Shape.read(own, tied=True, kv_heads=8, intermediate=self.intermediate)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """Which kernel runs."""
        return [*super().assumptions(recipe), mixers_as(recipe)]

    def default_kinds(self, config: Config, s: Shape) -> list[str]:
        """Attention in the listed layers, or in all of them."""
        listed = config.integers("full_attn_idxs", MAX_LAYERS)
        return ["full_attention" if listed is None or index in listed else "conv" for index in range(s.layers)]

    def sparse(self, config: Config, layers: int) -> list[bool]:
        """Which layers have experts."""
        return [False] * layers

    def mlp(self, config: Config, s: Shape, sparse: bool) -> Module:
        """The dense MLP, whose stated width is adjusted as Llama 1's was."""
        width = s.intermediate
        if config.flag("block_auto_adjust_ff_dim", True):
            width = 2 * width // 3
            if "block_ffn_dim_multiplier" not in config.entries or config.has("block_ffn_dim_multiplier"):
                width = max(1, int(config.number("block_ffn_dim_multiplier", 1.0, 0, 1_000) * width))
                multiple = config.integer("block_multiple_of", default=256, high=1 << 20)
                width = multiple * -(-width // multiple)
        return LfmMLP(s.hidden, width)


class LfmRouter(SigmoidRouter):
    """Sigmoid scores in the logits' own dtype."""


class Lfm2Moe(Lfm2):
    """Experts behind the first dense layers."""

    intermediate = 7168

    def default_kinds(self, config: Config, s: Shape) -> list[str]:
        """The config has to say."""
        if not config.has("layer_types"):
            config.integers("layer_types")
            config.integer("layer_types")  # raises: the field is missing
        return ["conv"] * s.layers

    def sparse(self, config: Config, layers: int) -> list[bool]:
        """All but the first few."""
        dense = config.integer("num_dense_layers", default=2, low=0, high=MAX_LAYERS)
        return [index >= dense for index in range(layers)]

    def mlp(self, config: Config, s: Shape, sparse: bool) -> Module:
        """Experts or the dense MLP."""
        if not sparse:
            return LfmMLP(s.hidden, s.intermediate)
        number = config.integer("num_experts", default=32, high=MAX_EXPERTS)
        width = config.integer("moe_intermediate_size", default=1792)
        chosen = config.integer("num_experts_per_tok", default=4, high=number)
        router = LfmRouter(s.hidden, number, chosen)
        router.biased, router.normed = config.flag("use_expert_bias", True), config.flag("norm_topk_prob", True)
        return SparseMLP(router, Experts(s.hidden, width, number, s.act), experts_first=True)

    def assumptions(self, recipe: Recipe) -> list[str]:
        """How the experts run."""
        return [*super().assumptions(recipe), ROUTING]
